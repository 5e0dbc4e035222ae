"""Block by block from the disk a model returns what it returns in memory, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, GraphConv

import nodebits
from nodebits import UniformConfig, convert
from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    GraphError,
    NodeIndexError,
    NonFiniteError,
    OutOfMemoryError,
    OutputBusyError,
    ShapeError,
    UnsupportedLayerError,
)
from nodebits.core.files import writing
from nodebits.out_of_core import predict as module
from nodebits.out_of_core.blocks import Block
from nodebits.out_of_core.broadcast import SourceBlocks
from nodebits.out_of_core.files import RowFile
from nodebits.out_of_core.predict import ORDERS, memory_bytes
from packed_models import CLASSES, FEATURES, make_case, two_steps
from session.test_exact import user_model, weighted_model

NODES = 300
SMALL = 40_000  # bytes, in which a few of these nodes fit with their edges


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is what is left for blocks: what the process has is not counted."""
    monkeypatch.setattr(module, "_resident", lambda: 0)
    monkeypatch.setattr(module, "_LEAST", 0)
    monkeypatch.setattr(module, "PART", 1000)  # tables are held where there is plenty


def graph(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(NODES, FEATURES, generator=generator)
    edges = torch.randint(0, NODES - 3, (2, 1500), generator=generator)
    hub = torch.stack([torch.arange(150), torch.full((150,), 7)])
    return x, torch.cat([edges, hub, torch.tensor([[4, 4], [4, 4]])], 1)


def blocks_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Notes the blocks that are run."""
    ran: list[tuple[int, int]] = []
    run = Block.run

    def noted(self: Block, stage: Any) -> Any:
        ran.append((self.first, self.last))
        return run(self, stage)

    monkeypatch.setattr(Block, "run", noted)
    return ran


@pytest.mark.usefixtures("unbounded")
@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "gat", "user"])
@pytest.mark.parametrize("memory", [SMALL, "1GiB"])
def test_same_bits(
    name: str, memory: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = user_model() if name == "user" else make_case(name).packed
    x, edges = graph()
    with torch.no_grad():
        expected = packed.module(x, edges)
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "edges.npy", edges.numpy())
    mapped = [np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in ("x", "edges")]
    ran = blocks_of(monkeypatch)
    if name == "gat" and memory == SMALL:  # ELU of all rows at once: torch rounds it by place
        with pytest.raises(OutOfMemoryError, match="'elu' is rounded by where"):
            nodebits.predict_out_of_core(packed, *mapped, folder=tmp_path / "f", memory=memory)
        return
    found = nodebits.predict_out_of_core(packed, *mapped, folder=tmp_path / "f", memory=memory)
    assert torch.equal(found, expected)
    assert len(ran) > 12 if memory == SMALL else len(ran) < 12, len(ran)
    prepared = packed.prepare_graph(edges, NODES)
    again = nodebits.predict_out_of_core(packed, x, prepared, folder=tmp_path / "g", memory=memory)
    assert torch.equal(again, expected)
    options = {"folder": tmp_path / "h", "memory": memory, "order": "sources"}
    assert torch.equal(nodebits.predict_out_of_core(packed, *mapped, **options), expected)
    left = {path.name.partition("-")[0] for path in (tmp_path / "h").iterdir()}
    assert left <= {"progress.json", "edges", "value"}


@pytest.mark.usefixtures("unbounded")
def test_every_row_is_read_once_in_the_order_of_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_case("gcn").packed
    x, edges = graph()
    read: dict[str, list[tuple[int, int]]] = {}
    of = RowFile.read

    def noted(self: RowFile, first: int, last: int) -> Tensor:
        read.setdefault(self.path.name, []).append((first, last))
        return of(self, first, last)

    begin = SourceBlocks.__init__
    bounds: list[list[tuple[int, int]]] = []

    def small(self: SourceBlocks, folder: Path, edges: Any, block: int, memory: int) -> None:
        begin(self, folder, edges, 70, memory)
        bounds.append(self.bounds)

    monkeypatch.setattr(RowFile, "read", noted)
    monkeypatch.setattr(RowFile, "take", None)  # nothing is looked up
    monkeypatch.setattr(SourceBlocks, "__init__", small)
    options = {"folder": tmp_path, "memory": SMALL, "order": "sources"}
    found = nodebits.predict_out_of_core(packed, x, edges, **options)
    assert torch.equal(found, packed.predict(x, edges))
    assert len(bounds) == 2 and bounds[0] == [
        (at, min(at + 70, NODES)) for at in range(0, NODES, 70)
    ]
    tables = [places for name, places in read.items() if name.startswith("value-")]
    assert sum(places[-5:] == bounds[0] for places in tables) == 2


@pytest.mark.usefixtures("unbounded")
@pytest.mark.parametrize("memory", [60_000, "1GiB"])
@pytest.mark.parametrize("order", ORDERS)
def test_edge_weights(order: str, memory: str | int, tmp_path: Path) -> None:
    x, edges = graph()
    weight = torch.rand(edges.size(1), generator=torch.Generator().manual_seed(1))
    weight[::7] = 0.0
    np.save(tmp_path / "w.npy", weight.numpy())
    models = {"gcn": GCNConv(FEATURES, 8), "graph": GraphConv(FEATURES, 8)}
    for name, layer in models.items():
        torch.manual_seed(2)
        packed = convert(two_steps(Weighted(layer), UniformConfig(bits=4), x, edges, weight))
        given = (weight, np.load(tmp_path / "w.npy", mmap_mode="r"), weight.view(-1, 1))
        for at, one in enumerate(given):
            options = {"folder": tmp_path / f"{name}-{at}", "memory": memory, "order": order}
            found = nodebits.predict_out_of_core(packed, x, edges, edge_weight=one, **options)
            assert torch.equal(found, packed.predict(x, edges, weight)), name
        # Others begin anew, and none are those of a graph without.
        found = nodebits.predict_out_of_core(packed, x, edges, **options)
        assert torch.equal(found, packed.predict(x, edges))
        assert not torch.equal(found, packed.predict(x, edges, weight))


class Weighted(nn.Module):
    """One layer takes weights, another has none."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, GCNConv(8, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        made: Tensor = self.second(self.first(x, edge_index, edge_weight).relu(), edge_index)
        return made


@pytest.mark.usefixtures("unbounded")
def test_weights_that_are_refused(tmp_path: Path) -> None:
    x, edges = graph()
    torch.manual_seed(2)
    weight = torch.rand(edges.size(1))
    layer = GCNConv(FEATURES, 8)
    packed = convert(two_steps(Weighted(layer), UniformConfig(bits=4), x, edges, weight))

    def run(weight: Any, packed: Any = packed) -> Any:
        options = {"folder": tmp_path, "memory": SMALL}
        return nodebits.predict_out_of_core(packed, x, edges, edge_weight=weight, **options)

    with pytest.raises(ShapeError, match=r"expected float32 \["):
        run(weight[:-1])
    with pytest.raises(ShapeError, match="list"):
        run([1.0])
    with pytest.raises(ConfigError, match="takes"):
        run(weight, user_model())
    for bad, error in ((float("nan"), NonFiniteError), (float("inf"), NonFiniteError)):
        weight[5] = bad
        with pytest.raises(error, match=r"edge_weight\[5\]"):
            run(weight)
    weight[5] = -1.0
    with pytest.raises(ConfigError, match=r"edge_weight\[5\] is -1.*not negative"):
        run(weight)
    with pytest.raises(ConfigError, match="order is 'rows'"):
        nodebits.predict_out_of_core(packed, x, edges, folder=tmp_path, order="rows")


@pytest.mark.usefixtures("unbounded")
@pytest.mark.parametrize("order", ORDERS)
def test_graphs_without_edges(order: str, tmp_path: Path) -> None:
    packed = make_case("gcn").packed
    x, edges = graph()
    none = edges[:, :0]
    options = {"folder": tmp_path, "memory": SMALL, "order": order}
    assert torch.equal(
        nodebits.predict_out_of_core(packed, x, none, **options), packed.predict(x, none)
    )
    assert nodebits.predict_out_of_core(packed, x[:0], none, **options).shape == (0, CLASSES)


@pytest.mark.usefixtures("unbounded")
def test_a_run_goes_on_after_its_last_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_case("gcn").packed
    x, edges = graph()
    ran = blocks_of(monkeypatch)
    whole = nodebits.predict_out_of_core(packed, x, edges, folder=tmp_path / "a", memory=SMALL)
    count = len(ran)
    for stop in range(1, count, 5):
        folder = tmp_path / str(stop)
        run, left = Block.run, stop

        def stopped(self: Block, stage: Any, run: Any = run) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return run(self, stage)

        with monkeypatch.context() as patch:
            patch.setattr(Block, "run", stopped)
            with pytest.raises(KeyboardInterrupt):
                nodebits.predict_out_of_core(packed, x, edges, folder=folder, memory=SMALL)
        ran.clear()
        found = nodebits.predict_out_of_core(packed, x, edges, folder=folder, memory=SMALL)
        assert torch.equal(found, whole)
        assert len(ran) <= count
    assert len(ran) < count  # the last was stopped in its last layer
    ran.clear()
    assert torch.equal(
        nodebits.predict_out_of_core(packed, x, edges, folder=folder, memory=SMALL), whole
    )
    assert ran == []
    other = nodebits.predict_out_of_core(packed, x + 1, edges, folder=folder, memory=SMALL)
    assert not torch.equal(other, whole)  # of other data nothing is taken up
    with torch.no_grad():
        assert torch.equal(other, packed.module(x + 1, edges))
    (folder / "progress.json").write_text("{")
    with pytest.raises(FileFormatError, match="remove it to begin anew"):
        nodebits.predict_out_of_core(packed, x, edges, folder=folder, memory=SMALL)


@pytest.mark.usefixtures("unbounded")
def test_what_is_refused(tmp_path: Path) -> None:
    packed = make_case("gcn").packed
    x, edges = graph()

    def run(x: Any = x, edges: Any = edges, packed: Any = packed, **options: Any) -> Any:
        given = {"folder": tmp_path / "f", "memory": SMALL, **options}
        return nodebits.predict_out_of_core(packed, x, edges, **given)

    for row, words in enumerate((r"\[0\]\[9\] is 300 \(the source", r"\[1\]\[9\] is 300")):
        bad = edges.clone()
        bad[row, 9] = NODES
        with pytest.raises(NodeIndexError, match=words):
            run(edges=bad)
    with pytest.raises(GraphError, match="float32"):
        run(edges=edges.float())
    with pytest.raises(ShapeError, match="float array"):
        run(x=x[0])
    with pytest.raises(OutOfMemoryError, match="edges into node 7"):
        run(memory=8_000)
    with pytest.raises(ConfigError, match="memory is 'much'"):
        run(memory="much")
    nan = x.clone()
    nan[200, 2] = float("nan")
    with pytest.raises(NonFiniteError, match="counted from node"):
        run(x=nan)
    with pytest.raises(UnsupportedLayerError, match="not known to work row by row"):
        run(packed=make_case("gcn", "a2q").packed)
    with writing(tmp_path / "f"), pytest.raises(OutputBusyError):
        run()
    assert torch.equal(run(), packed.predict(x, edges))


def test_too_little_memory(tmp_path: Path) -> None:
    x, edges = graph()
    with pytest.raises(ConfigError, match="beside what the process has now: allow at least"):
        nodebits.predict_out_of_core(
            make_case("gcn").packed, x, edges, folder=tmp_path, memory="10MiB"
        )
    with pytest.raises(ConfigError, match=r"there is no plan"):
        nodebits.predict_out_of_core(weighted_model(), x, edges, folder=tmp_path, memory="9GiB")


def test_sizes_in_words() -> None:
    found = [memory_bytes(text) for text in ("2GiB", "1.5 MB", 77, "10KiB")]
    assert found == [2 << 30, 1_500_000, 77, 10_240]
    for wrong in ("2 gib", "-1", "", True, "GiB"):
        with pytest.raises(ConfigError):
            memory_bytes(wrong)
