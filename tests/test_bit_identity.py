"""One arithmetic: simulated, packed, reloaded, on every level and thread count, the same bits."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from forking import Python
from nodebits import ops
from nodebits.runtime import load
from packed_models import Case, make_case, threads

NAMES = ("gcn", "gin", "gat", "sage")
METHODS = ("uniform", "degree-quant")
NODE = [(n, m, b, "node", "default") for n in NAMES for m in METHODS for b in (8, 4, 2, 1)]
PUBLISHED = [(n, m, 4, "node", "published") for n in NAMES for m in METHODS]
GRAPH = [(n, m, b, "graph", "default") for n in NAMES for m in METHODS for b in (4, 1)]
CASES = NODE + PUBLISHED + GRAPH
RAW = 300  # wide enough to count as raw features: a scale per row, sparse codes in training

Parameters = tuple[str, str, int, str, str]


@functools.cache
def made(parameters: Parameters, features: int = 12) -> Case:
    name, method, bits, task, preset = parameters
    return make_case(name, method, bits, task, features, preset=preset)


@pytest.fixture(params=CASES, ids=lambda p: "-".join(map(str, p)))
def case(request: pytest.FixtureRequest) -> Case:
    return made(request.param)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


def reordered(case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return case.edge_index[:, torch.randperm(case.edge_index.size(1), generator=generator)]


def test_packed_equals_simulated(case: Case) -> None:
    assert case.simulated.isfinite().all() and case.simulated.std() > 0
    assert torch.equal(case.packed.predict(case.x, case.edge_index, **case.extra), case.simulated)


def test_after_save_and_load(case: Case, tmp_path: Path) -> None:
    case.packed.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.spec == case.spec
    assert torch.equal(loaded.predict(case.x, case.edge_index, **case.extra), case.simulated)


@pytest.mark.parametrize("isa", ops.available_isas())
def test_every_level(case: Case, isa: str) -> None:
    with ops.force_isa(isa):
        assert torch.equal(
            case.packed.predict(case.x, case.edge_index.clone(), **case.extra), case.simulated
        )


def test_two_threads(case: Case) -> None:
    with threads(2):
        found = case.packed.predict(case.x, case.edge_index.clone(), **case.extra)
    assert torch.equal(found, case.simulated)


def test_packed_input_and_prepared_graph(case: Case) -> None:
    rows = case.packed.pack_input(case.x)
    graph = case.packed.prepare_graph(case.edge_index, case.x.size(0))
    assert rows.nbytes < 4 * case.x.numel()
    for _ in range(2):
        found = case.packed.predict(rows, graph, **case.extra)
        assert torch.equal(found, case.simulated)


def test_any_edge_order(case: Case) -> None:
    found = case.packed.predict(case.x, reordered(case), **case.extra)
    assert torch.equal(found, case.simulated)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", (8, 2))
def test_raw_features(name: str, method: str, bits: int, tmp_path: Path) -> None:
    case = made((name, method, bits, "node", "default"), RAW)
    case.packed.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            for model in (case.packed, loaded):
                assert torch.equal(model.predict(case.x, case.edge_index), case.simulated)
                assert torch.equal(
                    model.predict(model.pack_input(case.x), reordered(case)), case.simulated
                )


def test_another_graph_than_the_one_trained_on() -> None:
    """What the model computes for new nodes is simulated exactly, too: ranges clamp alike."""
    for name in NAMES:
        case = made((name, "degree-quant", 4, "node", "default"))
        x = 3 * torch.randn(75, 12)
        edges = torch.randint(0, 75, (2, 500))
        with torch.no_grad():
            assert torch.equal(case.packed.predict(x, edges), case.prepared(x, edges))


PROGRAM = """
import sys, torch, nodebits
torch.set_num_threads(int(sys.argv[2]))
case = torch.load(sys.argv[1] + "/inputs.pt")
for name, want in case["wanted"].items():
    model = nodebits.load(f"{sys.argv[1]}/{name}.safetensors")
    assert torch.equal(model.predict(case["x"], case["edge_index"]), want), name
from nodebits import ops
print(ops.current_isa())
"""


@pytest.mark.parametrize(
    ("isa", "count"),
    [
        pytest.param(isa, count, marks=[] if (isa, count) == ("reference", 2) else pytest.mark.slow)
        for isa in ops.available_isas()
        for count in (1, 2)
    ],
)
def test_another_process(isa: str, count: int, tmp_path: Path, python: Python) -> None:
    """The file is all that another process needs, whatever level it runs on."""
    wanted = {}
    for name in NAMES:
        case = made((name, "degree-quant", 4, "node", "default"))
        case.packed.save(tmp_path / f"{name}.safetensors")
        wanted[name] = case.simulated
    buffer = io.BytesIO()
    torch.save({"x": case.x, "edge_index": case.edge_index, "wanted": wanted}, buffer)
    (tmp_path / "inputs.pt").write_bytes(buffer.getvalue())
    done = python(PROGRAM, tmp_path, str(count), NODEBITS_ISA=isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == isa
