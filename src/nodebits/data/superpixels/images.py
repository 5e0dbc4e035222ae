"""Images of a data folder, their classes, and the split of the benchmark."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodebits.core.errors import DataNotFoundError, FileFormatError
from nodebits.data.extras import require

# The release keeps the first training images for validation.
NUM_VALIDATION = 5000
# The JPEG files are ordered by class, so that the first would be of one class.
ORDER_SEED = 0
_IDX_BYTES = 0x08


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        image: The pixels of an image by its number, uint8 ``[H, W]`` or ``[H, W, 3]``.
        labels: Classes, uint8 ``[N]``.
        order: Numbers of the images of ``train``, ``val`` and ``test``, in the order of the graphs.
    """

    image: Callable[[int], NDArray[np.uint8]]
    labels: NDArray[np.uint8]
    order: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Kind:
    """One set of images, and how its superpixels are cut.

    Attributes:
        name: Of the data set.
        read: Takes the folder of raw data.
        files: The files that it reads, below the folder; any form of a file's name will do.
        most: Superpixels of an image at most.
        more: How many more are asked of SLIC at first, which finds fewer than it is asked for.
        compactness: Weight of distances against that of colours in SLIC.
        about: What to say of the images wherever the set is named.
    """

    name: str
    read: Callable[[Path], Images]
    files: tuple[tuple[str, ...], ...]
    most: int
    more: int
    compactness: float
    about: str

    def found(self, root: Path) -> list[Path]:
        """The files below a data folder.

        Raises:
            DataNotFoundError: Some are missing; all forms of their names are said.
        """
        paths, missing = [], []
        for forms in self.files:
            there = [root / form for form in forms if (root / form).is_file()]
            paths += there[:1]
            missing += [] if there else [" or ".join(forms)]
        if missing:
            raise DataNotFoundError(
                f"data set {self.name!r}: {root} lacks {', '.join(missing)}; put the images there, "
                "or PyG's file of their graphs, or unset NODEBITS_DATA to download that"
            )
        return paths


def _mnist(root: Path) -> Images:
    paths = MNIST.found(root)
    train, test = (_pixels(paths[n]) for n in (0, 2))
    labels = [_idx(paths[n], 1) for n in (1, 3)]
    for pixels, own, path in zip((train, test), labels, paths[1::2], strict=True):
        if len(pixels) != len(own) or (len(own) and own.max() > 9):
            raise FileFormatError(
                f"{path} has {len(own)} labels up to {own.max(initial=0)} for {len(pixels)} "
                "images of ten classes: fetch it again"
            )
    first = min(NUM_VALIDATION, len(train) // 2)
    order = {
        "train": np.arange(first, len(train)),
        "val": np.arange(first),
        "test": np.arange(len(train), len(train) + len(test)),
    }
    pixels = np.concatenate([train, test])
    return Images(pixels.__getitem__, np.concatenate(labels), order)


def _pixels(path: Path) -> NDArray[np.uint8]:
    return _idx(path, 3)


def _idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Reads an array of the idx format: two zero bytes, the type, the axes, big-endian sizes."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"{path} cannot be read ({error}): fetch it again") from error
    start = 4 + 4 * axes
    if len(data) < start or tuple(data[:4]) != (0, 0, _IDX_BYTES, axes):
        raise FileFormatError(f"{path} is no idx file of bytes with {axes} axes: fetch it again")
    shape = np.frombuffer(data, ">u4", axes, 4).astype(int).tolist()
    if len(data) - start != int(np.prod(shape)):
        raise FileFormatError(
            f"{path} has {len(data) - start} bytes for {shape}: it is truncated, fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _cifar10_jpeg(root: Path) -> Images:
    (path,) = CIFAR10_JPEG.found(root)
    pillow = require("PIL.Image", "images", "images of a data folder need")
    jpeg, offsets, labels, is_test = _arrays(path, "jpeg", "offsets", "labels", "is_test")
    count = len(labels)
    ascending = len(offsets) == count + 1 and bool((np.diff(offsets.astype(np.int64)) > 0).all())
    if not ascending or offsets[0] < 0 or offsets[-1] > jpeg.size or len(is_test) != count:
        raise FileFormatError(
            f"{path}: offsets and is_test do not fit {count} labels and {jpeg.size} bytes of "
            "images: fetch it again"
        )

    def image(number: int) -> NDArray[np.uint8]:
        held = jpeg[offsets[number] : offsets[number + 1]].tobytes()
        try:
            pixels = np.asarray(pillow.open(io.BytesIO(held)).convert("RGB"))
        except Exception as error:  # Pillow raises many kinds for damaged bytes
            raise FileFormatError(f"{path}: image {number} is damaged ({error})") from error
        if pixels.shape != (32, 32, 3):
            raise FileFormatError(f"{path}: image {number} is {pixels.shape}, not (32, 32, 3)")
        return pixels

    # numpy promises this stream for good, and that of its newer generators not.
    generator = np.random.RandomState(ORDER_SEED)
    held_out = np.asarray(is_test, bool)
    train, test = (generator.permutation(np.nonzero(mask)[0]) for mask in (~held_out, held_out))
    first = min(NUM_VALIDATION, len(train) // 2)
    order = {"train": train[first:], "val": train[:first], "test": test}
    return Images(image, labels.astype(np.uint8), order)


def _arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays of an ``.npz`` file by name; nothing in it is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]
    except KeyError as error:
        raise FileFormatError(f"{path} has no array {error}: fetch it again") from error
    except Exception as error:  # numpy and zipfile raise many kinds for damaged bytes
        raise FileFormatError(
            f"{path} is no readable .npz file ({type(error).__name__}: {error}): fetch it again"
        ) from error


def _forms(name: str) -> tuple[str, ...]:
    return f"MNIST/raw/{name}-ubyte", f"MNIST/raw/{name}-ubyte.gz"


# Sizes and compactness of the benchmark's release, which took them from Knyazev et al. 2019.
MNIST = Kind(
    name="MNIST-slic",
    read=_mnist,
    files=tuple(
        _forms(f"{part}-{what}")
        for part in ("train", "t10k")
        for what in ("images-idx3", "labels-idx1")
    ),
    most=75,
    more=20,
    compactness=0.25,
    about="The validation images are the first of the training images, as in the release.",
)
CIFAR10_JPEG = Kind(
    name="CIFAR10-jpeg-slic",
    read=_cifar10_jpeg,
    files=(("CIFAR10/cifar10_jpeg.npz",),),
    most=150,
    more=50,
    compactness=10.0,
    about=(
        "Its images were compressed as JPEG, which is lossy: figures are not those of the lossless "
        "images. They are ordered by class, so order and validation images are drawn (RandomState, "
        f"seed {ORDER_SEED})."
    ),
)
KINDS = {kind.name: kind for kind in (MNIST, CIFAR10_JPEG)}
