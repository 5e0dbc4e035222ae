"""Superpixels of images: the definition, parts in the cache, and files that are wrong."""

from __future__ import annotations

import gzip
import io
import math
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nodebits.core.errors import (
    ConfigError,
    DataNotFoundError,
    FileFormatError,
    MissingExtraError,
)
from nodebits.data import load_dataset
from nodebits.data.catalogue import find_entry
from nodebits.data.superpixels import parts
from nodebits.data.superpixels.images import KINDS
from nodebits.data.superpixels.segment import NO_NEIGHBOUR, nearest, superpixels

skimage = pytest.importorskip("skimage.segmentation")
pytest.importorskip("PIL")
MNIST, CIFAR10 = KINDS["MNIST-slic"], KINDS["CIFAR10-jpeg-slic"]


def pictures(count: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Blobs that differ from picture to picture, on black."""
    generator = np.random.default_rng(0)
    images = np.zeros((count, *shape), np.uint8)
    images[:, 6:20, 8:22] = generator.integers(0, 256, (count, 14, 14, *shape[2:]))
    return images


def idx(array: NDArray[np.uint8]) -> bytes:
    head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def write_mnist(root: Path, train: int = 8, test: int = 4) -> Path:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = gzip.compress(idx(pictures(count, (28, 28))), 1)
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return raw


def write_cifar10(root: Path, count: int = 12, **changed: object) -> Path:
    from PIL import Image

    files = []
    for image in pictures(count, (32, 32, 3)):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": np.sort(np.arange(count) % 10),
        "is_test": np.arange(count) % 3 == 0,
    }
    path = root / "CIFAR10" / "cifar10_jpeg.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **(arrays | changed))
    return path


@pytest.mark.parametrize("kind", [MNIST, CIFAR10], ids=lambda kind: kind.name)
def test_superpixels_are_those_of_one_segmentation_less_at_a_time(kind: object) -> None:
    kind = MNIST if kind is MNIST else CIFAR10
    shape = (28, 28) if kind is MNIST else (32, 32, 3)
    (image,) = pictures(1, shape)
    colours = None if kind is MNIST else -1
    asked, cut = kind.most + kind.more, np.arange(kind.most + 1)
    while len(np.unique(cut)) > kind.most:
        cut = skimage.slic(
            image / np.float32(255), asked, kind.compactness, channel_axis=colours, start_label=0
        )
        asked -= 1
    x = superpixels(image, kind.most, kind.more, kind.compactness)
    numbers = np.unique(cut)
    assert 1 < len(numbers) == len(x) <= kind.most and x.dtype == np.float16
    for row, number in zip(x.astype(np.float64), numbers, strict=True):
        own = cut == number
        places = np.argwhere(own).mean(axis=0) / image.shape[:2]
        means = image[own].reshape(own.sum(), -1).mean(axis=0) / 255
        np.testing.assert_allclose(row, [*means, *places], atol=1e-3)


def test_an_image_of_one_colour_is_a_graph() -> None:
    x = superpixels(np.zeros((28, 28), np.uint8), 75, 20, 0.25)
    assert 1 <= len(x) <= 75 and not x[:, 0].any()


def test_the_nearest_by_the_kernel() -> None:
    centres = np.random.default_rng(0).random((12, 2))
    width = [
        sum(sorted(math.dist(one, other) for other in centres)[:9]) / 8 + 1e-8 for one in centres
    ]
    found = nearest(centres)
    for i, one in enumerate(centres):
        weight = {
            j: math.exp(-((math.dist(one, other) / width[i]) ** 2))
            + math.exp(-((math.dist(one, other) / width[j]) ** 2))
            for j, other in enumerate(centres)
            if j != i
        }
        assert found[i].tolist() == sorted(weight, key=lambda j: -weight[j])[:8]
    few = nearest(centres[:3])
    assert sorted(few[1].tolist()[:2]) == [0, 2] and set(few[1].tolist()[2:]) == {NO_NEIGHBOUR}
    assert nearest(centres[:1]).tolist() == [[NO_NEIGHBOUR] * 8]


def test_mnist_is_made_once_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    monkeypatch.setattr(parts, "_processors", lambda: 1)
    made = load_dataset("MNIST", tmp_path, cache=tmp_path / "cache")
    assert made.name == "MNIST-slic" and "not the benchmark's own files" in made.notes
    assert [len(i) for i in (made.train_idx, made.val_idx, made.test_idx)] == [4, 4, 4]
    # Validation images are the first ones.
    assert [int(made.graphs[n].y) for n in made.val_idx] == [0, 1, 2, 3]
    assert [int(made.graphs[n].y) for n in made.train_idx] == [4, 5, 6, 7]
    graph = made.graphs[0]
    assert (made.num_features, made.num_classes) == (3, 8)
    assert graph.x.dtype == torch.float32 and graph.edge_index.size(1) == 8 * len(graph.x)
    assert bool((graph.edge_index[0] != graph.edge_index[1]).all())
    assert int(graph.edge_index.max()) < len(graph.x)
    monkeypatch.setattr(parts, "make_part", None)  # a second time nothing is made
    again = load_dataset("mnist-slic", tmp_path, cache=tmp_path / "cache")
    assert torch.equal(again.graphs[3].x, made.graphs[3].x)
    with pytest.raises(ConfigError, match="one split"):
        load_dataset("MNIST", tmp_path, cache=tmp_path / "cache", split=3)


def test_what_was_stopped_goes_on_and_a_subset_makes_its_parts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path)
    monkeypatch.setattr(parts, "PART", 2)
    monkeypatch.setattr(parts, "_processors", lambda: 1)
    made: list[parts.Part] = []
    real = parts.make_part

    def counted(kind: object, images: object, part: parts.Part, folder: Path) -> None:
        if len(made) == 4:
            raise KeyboardInterrupt
        real(kind, images, part, folder)  # type: ignore[arg-type]
        made.append(part)

    monkeypatch.setattr(parts, "make_part", counted)
    few = load_dataset("MNIST:1", tmp_path, cache=tmp_path / "cache")
    assert few.name == "MNIST-slic:1" and len(few) == 3 and "The first 1 of each part" in few.notes
    assert [(p.split, p.number) for p in made] == [("train", 0), ("val", 0), ("test", 0)]
    with pytest.raises(KeyboardInterrupt):
        load_dataset("MNIST", tmp_path, cache=tmp_path / "cache")
    monkeypatch.setattr(parts, "make_part", real)
    assert len(load_dataset("MNIST", tmp_path, cache=tmp_path / "cache")) == 12


def test_processes_make_what_one_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    monkeypatch.setattr(parts, "_processors", lambda: 1)
    one = load_dataset("MNIST", tmp_path, cache=tmp_path / "one")
    monkeypatch.setattr(parts, "_processors", lambda: 2)
    two = load_dataset("MNIST", tmp_path, cache=tmp_path / "two")
    for first, second in zip(one.graphs, two.graphs, strict=True):
        assert torch.equal(first.x, second.x)
        assert torch.equal(first.edge_index, second.edge_index)


def test_cifar10_says_that_its_images_are_lossy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path)
    monkeypatch.setattr(parts, "_processors", lambda: 1)
    made = load_dataset("CIFAR10", tmp_path, cache=tmp_path / "cache")
    assert made.name == "CIFAR10-jpeg-slic" and made.num_features == 5
    assert "lossy" in made.notes and "lossy" in made.citation
    assert sorted(int(g.y) for g in made.graphs) == sorted(sorted(n % 10 for n in range(12)))


def test_released_files_come_first(tmp_path: Path) -> None:
    raw = write_mnist(tmp_path)
    assert find_entry("MNIST", tmp_path).name == "MNIST-slic"
    assert find_entry("MNIST").name == "MNIST"  # to be downloaded
    graph = {
        "x": torch.rand(3, 1), "pos": torch.rand(3, 2), "y": torch.tensor([1]),
        "edge_index": torch.tensor([[0, 1, 2], [1, 2, 0]]), "edge_attr": torch.rand(3),
    }  # fmt: skip
    torch.save(([graph] * 4, [graph] * 2, [graph] * 3), raw / "MNIST_v2.pt")
    found = load_dataset("MNIST", tmp_path, cache=tmp_path / "cache")
    assert (found.name, found.num_features) == ("MNIST", 3) and "own graphs" in found.notes
    assert [len(i) for i in (found.train_idx, found.val_idx, found.test_idx)] == [4, 2, 3]
    assert torch.equal(found.graphs[0].x, torch.cat([graph["x"], graph["pos"]], dim=1))
    few = load_dataset("MNIST:1", tmp_path, cache=tmp_path / "cache")
    assert (few.name, len(few), few.test_idx.tolist()) == ("MNIST:1", 3, [2])


def test_names_of_subsets() -> None:
    assert find_entry("cifar10_jpeg_slic:50").first == 50
    for wrong in ("MNIST:0", "Cora:5", "digits-graphs:5", "ESOL:5"):
        with pytest.raises(ConfigError, match="first N graphs"):
            find_entry(wrong)


def test_missing_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODEBITS_DATA", raising=False)  # real images would be cut, all of them
    with pytest.raises(DataNotFoundError, match=r"train-images-idx3-ubyte or .*\.gz"):
        load_dataset("MNIST", tmp_path)
    with pytest.raises(DataNotFoundError, match=r"cifar10_jpeg\.npz"):
        load_dataset("CIFAR10-jpeg-slic", tmp_path)
    with pytest.raises(DataNotFoundError, match="pass root"):
        load_dataset("MNIST-slic")


def test_damaged_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_processors", lambda: 1)
    raw = write_mnist(tmp_path)
    labels = raw / "train-labels-idx1-ubyte"
    images = raw / "train-images-idx3-ubyte.gz"
    good = images.read_bytes()
    for data, words in (
        (good[:100], "cannot be read"),
        (gzip.compress(gzip.decompress(good)[:-1]), "truncated"),
        (gzip.compress(idx(np.zeros(3, np.uint8))), "no idx file"),
    ):
        images.write_bytes(data)
        with pytest.raises(FileFormatError, match=words):
            load_dataset("MNIST", tmp_path, cache=tmp_path / "cache")
    images.write_bytes(good)
    labels.write_bytes(idx(np.full(8, 10, np.uint8)))
    with pytest.raises(FileFormatError, match="labels up to 10"):
        load_dataset("MNIST", tmp_path, cache=tmp_path / "cache")


def test_damaged_jpegs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_cifar10(tmp_path, jpeg=np.zeros(1 << 20, np.uint8))
    for workers in (1, 2):
        monkeypatch.setattr(parts, "_processors", lambda n=workers: n)
        with pytest.raises(FileFormatError, match=r"image \d+ is damaged"):
            load_dataset("CIFAR10", tmp_path, cache=tmp_path / "cache")
    path.unlink()
    path.parent.rmdir()
    write_cifar10(tmp_path, offsets=np.zeros(13, np.int64))
    with pytest.raises(FileFormatError, match="offsets"):
        load_dataset("CIFAR10", tmp_path, cache=tmp_path / "cache")
    path.write_bytes(b"PK")
    with pytest.raises(FileFormatError, match=r"no readable \.npz"):
        load_dataset("CIFAR10", tmp_path, cache=tmp_path / "cache")


def test_a_damaged_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    monkeypatch.setattr(parts, "_processors", lambda: 1)
    load_dataset("MNIST", tmp_path, cache=tmp_path / "cache")
    (part,) = (tmp_path / "cache").rglob("val-0000.npz")
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(FileFormatError, match=r"val-0000\.npz is damaged.*delete it"):
        load_dataset("MNIST", tmp_path, cache=tmp_path / "cache")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError, match=r"nodebits\[images\]"):
        load_dataset("MNIST", tmp_path, cache=tmp_path / "cache")
