"""Packed features without a model: written in one stream, mapped, decoded by index."""

from __future__ import annotations

import json
import os
import stat

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.datasets import FakeDataset
from torch_geometric.nn import GCN

import nodebits
from nodebits import PackedFeatures, PackedFeatureStore, Packing, pack_features
from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    NodebitsError,
    NodeIndexError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
)
from nodebits.store import write as write_module

BITS = (1, 2, 3, 4, 7, 8)


def matrix(rows=50, columns=7, seed=0, low=-1.0):
    return torch.empty(rows, columns).uniform_(
        low, 2, generator=torch.Generator().manual_seed(seed)
    )


def packed(tmp_path, x, name="x.safetensors", **settings):
    path = tmp_path / name
    return pack_features(x, path, Packing(**settings)), PackedFeatures(path)


@pytest.mark.parametrize("granularity", ["tensor", "column", "row"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_values_are_within_half_a_step(tmp_path, bits, granularity, low):
    x = matrix(low=low)
    _, features = packed(tmp_path, x, bits=bits, granularity=granularity, chunk_rows=8)
    back = features[:]
    if granularity == "row":
        step = features.rows.scale.view(-1, 1)
        # A symmetric code has one step less on the positive side, and few bits a cut range.
        least = -features.rows.zero_point * step
        inside = torch.maximum(torch.minimum(x, least + ((1 << bits) - 1) * step), least)
        assert bool(((back - inside).abs() <= step / 2 + 1e-6).all())
    else:
        step = features.rows.scale.max()
        assert bool(((back - x).abs() <= step * 0.5001 + step * 0.5 * (low < 0)).all())
    assert features.signed == (low < 0)
    assert features.nbytes < 4 * x.numel() or bits > 4


@given(
    rows=st.integers(0, 40),
    columns=st.integers(0, 12),
    bits=st.sampled_from(BITS),
    granularity=st.sampled_from(["tensor", "column", "row"]),
    chunk=st.integers(1, 50),
)
@settings(max_examples=60, deadline=None)
def test_pieces_do_not_matter(tmp_path_factory, rows, columns, bits, granularity, chunk):
    folder = tmp_path_factory.mktemp("x")
    x = matrix(rows, columns)
    kind = {"bits": bits, "granularity": granularity}
    packed(folder, x, "one.safetensors", **kind)
    packed(folder, x, "two.safetensors", **kind, chunk_rows=chunk)
    one, two = (folder / f"{name}.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_indexing_is_that_of_the_whole(tmp_path):
    _, features = packed(tmp_path, matrix())
    whole = features[:]
    index = torch.tensor([3, 3, 49, 0])
    mask = torch.zeros(50, dtype=torch.bool)
    mask[5] = True
    for where in (index, index.tolist(), index.numpy(), index.int(), mask, slice(4, 40, 3), []):
        wanted = whole[where] if not isinstance(where, list) or where else whole[:0]
        assert features[where].equal(wanted)
    assert features[-1].equal(whole[-1]) and features[7].equal(whole[7])
    for where, error in [
        (50, NodeIndexError),
        (torch.tensor([50]), NodeIndexError),
        (torch.tensor([-1]), NodeIndexError),
        (torch.tensor([1.0]), ShapeError),
        (torch.tensor([[1]]), ShapeError),
        ("x", ShapeError),
        (torch.ones(49, dtype=torch.bool), ShapeError),
    ]:
        with pytest.raises(error):
            features[where]


def sources(folder, x):
    np.save(folder / "x.npy", x.numpy())
    np.savez(folder / "x.npz", x=x.numpy())
    torch.save(x, folder / "x.pt")
    mapped = np.load(folder / "x.npy", mmap_mode="r")
    return [
        folder / "x.npy",
        folder / "x.npz",
        folder / "x.pt",
        mapped,
        x.numpy(),
        x.double(),
        x.t().contiguous().t(),
        Data(x=x, edge_index=torch.zeros(2, 1, dtype=torch.int64)),
    ]


def test_every_source_gives_the_same_file(tmp_path):
    x, found = matrix(), set()
    for number, source in enumerate(sources(tmp_path, x)):
        out = tmp_path / f"{number}.safetensors"
        pack_features(source, out)
        found.add(out.read_bytes())
    assert len(found) == 1


def test_the_graph_of_a_data_set(tmp_path):
    dataset = FakeDataset(num_graphs=1, avg_num_nodes=30)
    pack_features(dataset, tmp_path / "a.safetensors")
    pack_features(dataset[0].x, tmp_path / "b.safetensors")
    one, two = (tmp_path / f"{name}.safetensors" for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(ShapeError, match="has 2 graphs"):
        pack_features(FakeDataset(num_graphs=2), tmp_path / "c.safetensors")


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    x = matrix()
    table = pyarrow.table({f"c{i}": x[:, i].numpy() for i in range(7)})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=9)
    pack_features(x, tmp_path / "a.safetensors")
    pack_features(tmp_path / "x.parquet", tmp_path / "b.safetensors", Packing(chunk_rows=11))
    one, two = (tmp_path / f"{name}.safetensors" for name in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_a_stopped_call_goes_on(tmp_path, monkeypatch):
    x = matrix()
    for granularity in ("column", "row"):
        settings = {"granularity": granularity, "chunk_rows": 5}
        pack_features(x, tmp_path / f"{granularity}-whole.safetensors", Packing(**settings))
        out, seen = tmp_path / f"{granularity}.safetensors", []
        real = write_module.ops.quantize_pack

        def stopping(*arguments, _seen=seen, _real=real):
            _seen.append(0)
            if len(_seen) == 6:
                raise KeyboardInterrupt
            return _real(*arguments)

        monkeypatch.setattr(write_module, "_SAVE_SECONDS", -1.0)
        monkeypatch.setattr(write_module.ops, "quantize_pack", stopping)
        with pytest.raises(KeyboardInterrupt):
            pack_features(x, out, Packing(**settings))
        assert not out.exists()
        monkeypatch.setattr(write_module.ops, "quantize_pack", real)
        found = pack_features(x, out, Packing(**settings | {"chunk_rows": 7}))
        assert found.resumed == 25
        whole = (tmp_path / f"{granularity}-whole.safetensors").read_bytes()
        assert out.read_bytes() == whole
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_another_matrix_does_not_go_on(tmp_path, monkeypatch):
    out = tmp_path / "x.safetensors"
    monkeypatch.setattr(write_module, "_SAVE_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(write_module._Writer, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack_features(matrix(), out)
    other = matrix(seed=1)
    assert pack_features(other, out).resumed == 0
    pack_features(other, tmp_path / "y.safetensors")
    assert out.read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_ranges_of_a_sample_clip_and_say_so(tmp_path):
    x = matrix(1000, 3)
    x[::97] *= 30
    done, features = packed(tmp_path, x, bits=8, sample_rows=64, seed=3)
    assert 33 < done.clipped < 300  # 2 of 65 values lie beyond the extremes of 64 others
    assert float(features[:].max()) < float(x.max())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_what_float32_cannot_hold_is_named(tmp_path, value):
    x = matrix().double()
    x[33, 4] = value
    with pytest.raises(NonFiniteError, match="row 33, column 4"):
        packed(tmp_path, x, chunk_rows=10)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (torch.zeros(3), ShapeError),
        (torch.zeros(3, 2, 2), ShapeError),
        (torch.zeros(3, 2, dtype=torch.complex64), ShapeError),
        (np.zeros((3, 2), dtype=object), ShapeError),
        (np.array([["a"]]), ShapeError),
        (torch.zeros(3, 2).to_sparse(), ShapeError),
        (Data(), ShapeError),
        ({"x": torch.zeros(3, 2)}, ShapeError),
    ],
)
def test_what_is_no_matrix(tmp_path, source, error):
    with pytest.raises(error):
        pack_features(source, tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt", "x.txt"])
def test_damaged_sources(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(FileFormatError, match=name):
        pack_features(tmp_path / name, tmp_path / "out.safetensors")
    with pytest.raises(FileNotFoundError):
        pack_features(tmp_path / f"none-{name}", tmp_path / "out.safetensors")


@pytest.mark.parametrize("field", [{"bits": 9}, {"granularity": "node"}, {"chunk_rows": 0}])
def test_bad_settings(field):
    with pytest.raises(ConfigError):
        Packing(**field)


def test_existing_files_are_left_alone(tmp_path):
    packed(tmp_path, matrix())
    with pytest.raises(OutputExistsError):
        packed(tmp_path, matrix())
    pack_features(matrix(seed=1), tmp_path / "x.safetensors", force=True)


def test_damage_is_noticed(tmp_path):
    packed(tmp_path, matrix(20, 5))
    path = tmp_path / "x.safetensors"
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    places = [*range(8), *generator.integers(8, len(whole), 200), len(whole) - 1]
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(broken)
        with pytest.raises(FileFormatError):
            PackedFeatures(path)
    for size in (0, 7, 100, 8192, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FileFormatError):
            PackedFeatures(path, verify=False)


@pytest.fixture(scope="module")
def model():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 12, generator=generator)
    edge_index = torch.randint(0, 60, (2, 200), generator=generator)
    prepared = nodebits.prepare(GCN(12, 16, 2, 3), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, x, edge_index)
    return nodebits.convert(prepared), x, edge_index


def test_features_are_a_models_input(tmp_path, model):
    network, x, edge_index = model
    _, features = packed(tmp_path, x, bits=4, granularity="row")
    given = features.input_of(network)
    assert network.predict(given, edge_index).equal(network.predict(x, edge_index))
    for kind in ({"bits": 8, "granularity": "row"}, {"bits": 4}):
        _, other = packed(tmp_path, x, f"{kind['bits']}", **kind)
        with pytest.raises(ConfigError, match="4 bits with a scale per row"):
            other.input_of(network)


def test_batches_of_a_loader_are_filled(tmp_path):
    x = matrix()
    _, features = packed(tmp_path, x, bits=8)
    batch = Data(n_id=torch.tensor([4, 9]))
    assert features.transform()(batch).x.equal(features[[4, 9]])
    store = PackedFeatureStore({(None, "x"): features, ("paper", "x"): features})
    assert store.get_tensor(group_name="paper", attr_name="x", index=None).equal(features[:])
    index = torch.tensor([2, 1])
    assert store.get_tensor(group_name=None, attr_name="x", index=index).equal(features[index])
    assert tuple(store.get_tensor_size(group_name=None, attr_name="x")) == (50, 7)
    assert len(store.get_all_tensor_attrs()) == 2
    with pytest.raises(NodebitsError):
        store.put_tensor(x, group_name=None, attr_name="y", index=None)


def test_the_file_is_read_only_memory_of_its_own_size(tmp_path):
    done, features = packed(tmp_path, matrix(200, 30), bits=4)
    assert done.bytes == os.stat(done.path).st_size < 200 * 30 * 4
    assert stat.S_ISREG(os.stat(done.path).st_mode) and "bits=4" in repr(features)
    head = (tmp_path / "x.safetensors").read_bytes()[8:8192]
    assert json.loads(head)["packed"]["shape"] == [200, 15]


def test_rows_kept_in_memory_are_those_of_the_file(tmp_path):
    _, features = packed(tmp_path, matrix(), granularity="row")
    kept = features.on_host("cpu")
    for where in (3, slice(4, 40, 3), [3, 3, 49], []):
        assert kept[where].equal(features[where])
    assert kept.reader == torch.device("cpu") and features.reader is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_nothing_is_copied(tmp_path):
    _, features = packed(tmp_path, matrix())
    with pytest.raises(ConfigError, match="torch finds no CUDA device"):
        features.on_host("cuda")
