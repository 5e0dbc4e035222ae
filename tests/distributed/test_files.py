from __future__ import annotations

import json

import pytest
import torch

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.distributed.files import is_folder_of_parts, read_contents, read_part, write_parts
from nodebits.distributed.progress import Progress
from packed_models import NODES, small_graph


@pytest.fixture
def folder(tmp_path):
    x, edges = small_graph()
    weight = {"edge_weight": torch.rand(edges.size(1))}
    write_parts(
        tmp_path, edges, {"x": x}, weight, 3, name="small", ids=[f"n{i}" for i in range(NODES)]
    )
    return tmp_path


def test_a_part_has_the_rows_of_its_nodes_and_edges(folder):
    x, edges = small_graph()
    contents = read_contents(folder)
    assert is_folder_of_parts(folder) and contents.ids[7] == "n7" and contents.classes is None
    assert (contents.parts, contents.nodes, contents.edges) == (3, NODES, edges.size(1))
    parts = [read_part(folder, rank) for rank in range(3)]
    for one in parts:
        assert torch.equal(one.of_nodes["x"], x[one.part.nodes])
        assert one.of_edges["edge_weight"].shape == one.part.indices.shape
    assert contents.boundary == sum(sum(one.part.receive) for one in parts)


def test_what_is_no_part(folder):
    with pytest.raises(ConfigError, match="none for rank 3"):
        read_part(folder, 3)
    data = bytearray((folder / "part-1.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "part-1.safetensors").write_bytes(data)
    with pytest.raises(FileFormatError):
        read_part(folder, 1)
    (folder / "part-2.safetensors").write_bytes((folder / "part-0.safetensors").read_bytes())
    with pytest.raises(FileFormatError, match="another division"):
        read_part(folder, 2)
    text = json.loads((folder / "partition.json").read_text())
    for name, value in (("parts", -1), ("id", 5), ("nodes", None), ("version", 9)):
        (folder / "partition.json").write_text(json.dumps({**text, name: value}))
        with pytest.raises(FileFormatError, match=name):
            read_contents(folder)


def test_numbers_that_others_would_trust_are_looked_at(folder):
    from nodebits.runtime import container

    path = folder / "part-0.safetensors"
    header, tensors = container.read(path, container.PART)
    about = header["part"]
    for name, value in (("send", NODES), ("nodes", NODES), ("indices", 10_000), ("nodes", -1)):
        changed = tensors[name].clone()
        changed[0] = value
        container.write(path, container.PART, {"part": about}, {**tensors, name: changed})
        with pytest.raises((FileFormatError, IndexError), match=r"must be in|outside|is \d+"):
            read_part(folder, 0)
    for name, value in (("inner", 10_000), ("receive", [0, 1]), ("send", [0, 0, 0])):
        container.write(path, container.PART, {"part": {**about, name: value}}, tensors)
        with pytest.raises(FileFormatError, match="do not fit"):
            read_part(folder, 0)


def test_progress_keeps_two_layers_of_one_key(tmp_path):
    progress = Progress(tmp_path, 0, "one")
    assert progress.layers() == []
    for layer in (1, 2, 3):
        progress.save(layer, {4: torch.full((2, 2), layer)})
    assert progress.layers() == [2, 3]
    assert progress.load(2)[4].tolist() == [[2, 2], [2, 2]]
    assert Progress(tmp_path, 0, "two").layers() == Progress(tmp_path, 1, "one").layers() == []
    progress.clear()
    assert not (tmp_path / "progress").exists()
