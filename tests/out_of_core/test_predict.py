"""Block by block from the disk a model returns what it returns in memory, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nodebits
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
from nodebits.out_of_core.predict import memory_bytes
from packed_models import FEATURES, make_case
from session.test_exact import user_model, weighted_model

NODES = 300
SMALL = 40_000  # bytes, in which a few of these nodes fit with their edges


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is what is left for blocks: what the process has is not counted."""
    monkeypatch.setattr(module, "_resident", lambda: 0)
    monkeypatch.setattr(module, "_LEAST", 0)


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
    assert len(ran) > 20 if memory == SMALL else len(ran) < 20
    prepared = packed.prepare_graph(edges, NODES)
    again = nodebits.predict_out_of_core(packed, x, prepared, folder=tmp_path / "g", memory=memory)
    assert torch.equal(again, expected)


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
