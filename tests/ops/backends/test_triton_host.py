"""Rows in the host's memory: pages that stay pinned while a tensor lies in them; what is read."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from on_triton import DEVICE, INTERPRETED, needs_triton, on_kernels
from operator_inputs import codes, generator

import nodebits
from nodebits import ops
from nodebits.core.errors import OutOfMemoryError
from nodebits.ops import Source, host
from nodebits.ops.backends.triton import host as pinned
from packed_models import NODES, make_case

CUDA = torch.device("cuda")


class Driver:
    """As much of CUDA's runtime as pinning asks for."""

    def __init__(self) -> None:
        self.code, self.held, self.waited = 0, {}, 0

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        if not self.code:
            self.held[address] = size
        return self.code

    def cudaHostUnregister(self, address: int) -> None:
        del self.held[address]

    def synchronize(self, device: torch.device) -> None:
        self.waited += 1


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    cuda = SimpleNamespace(cudart=lambda: made, synchronize=made.synchronize)
    monkeypatch.setattr(pinned, "torch", SimpleNamespace(**{**vars(torch), "cuda": cuda}))
    return made


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
@pytest.mark.parametrize("rows", [1, 5000])
def test_pages_are_given_back_with_the_last_tensor(
    driver: Driver, dtype: torch.dtype, rows: int
) -> None:
    t = torch.randint(0, 99, (rows, 3)).to(dtype)
    made = pinned.readable_copy(t, CUDA)
    assert torch.equal(made, t) and made.dtype == dtype
    ((address, size),) = driver.held.items()
    assert address == made.data_ptr() and address % mmap.PAGESIZE == 0
    assert size % mmap.PAGESIZE == 0 and t.nbytes <= size < t.nbytes + mmap.PAGESIZE
    part = made[rows // 2 :].view(torch.uint8)
    del made
    gc.collect()
    assert driver.held and not driver.waited
    del part
    gc.collect()
    assert not driver.held and driver.waited == 1  # not while a kernel may read them


def test_a_driver_that_refuses(driver: Driver) -> None:
    driver.code = 2
    with pytest.raises(OutOfMemoryError, match=r"12 bytes .*error 2 of CUDA.*fewer bits"):
        pinned.readable_copy(torch.ones(3), CUDA)
    gc.collect()
    assert not driver.waited  # nothing is to be given back


def test_more_than_there_is(driver: Driver) -> None:
    huge = torch.empty(1, dtype=torch.uint8).expand(1 << 60)
    with pytest.raises(OutOfMemoryError, match=f"{1 << 60} bytes of features cannot be pinned"):
        pinned.readable_copy(huge, CUDA)
    assert not driver.held


@needs_triton
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int32, torch.float32])
@pytest.mark.parametrize("shape", [(9,), (9, 3), (9, 8), (9, 300), (9, 2, 5), (9, 0)])
def test_rows_are_taken_byte_for_byte(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    table = torch.randint(0, 2, shape, generator=generator()).to(dtype)
    index = torch.tensor([8, 0, 0, 5])
    there = table if INTERPRETED else host.readable_copy(table, DEVICE)
    for taken in (index, index[:0]):
        found = pinned.take_rows(there, taken.to(DEVICE))
        assert torch.equal(found.cpu(), table[taken])


@contextmanager
def over_the_bus() -> Iterator[None]:
    """Rows of packed features are taken by the kernel, also where host and device are one."""
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setattr(host, "apart", lambda table, index: True)
            patch.setattr(host, "memory_for", lambda kind: pinned)
        yield


FORMS = {
    "dense": ("sage", "uniform", {}),
    "sparse": ("gcn", "uniform", {"features": 400}),
    "width per degree": ("gcn", "sgquant", {"splits": (4, 8), "degree_bits": (6, 4, 3)}),
    "float": ("gcn", "uniform", {"overrides": {"convs.0.lin.input": 32}}),
}


@needs_triton
@pytest.mark.filterwarnings("ignore::nodebits.core.errors.SaturationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_predictions_are_the_bits_of_the_cpu(form: str) -> None:
    name, method, options = FORMS[form]
    case = make_case(name, method, **options)
    graph = case.packed.prepare_graph(case.edge_index, NODES)
    features = case.packed.pack_input(case.x, edge_index=case.edge_index)
    asked = [3, 0, 3, 39], [4, 4]
    expected = case.packed.predict_nodes(graph, features, *asked, seed=5)
    model = case.packed.to(DEVICE)
    with over_the_bus():
        found = model.predict_nodes(graph, features.on_host(DEVICE), *asked, seed=5)
    assert found.device.type == DEVICE.type and torch.equal(found.cpu(), expected)


@needs_triton
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_gathering_from_the_host(axis: int) -> None:
    g = generator(axis)
    packed = ops.pack(codes(9, 21, 4, g), 4)
    index = torch.randint(0, 9, (20,), generator=g, dtype=torch.int32)
    scale = torch.rand({-1: 1, 0: 9, 1: 21}[axis], generator=g)
    expected = ops.gather_rows(Source(packed, 4, 21), index, 3, 17, scale, scale, axis)
    there = packed, *((scale, scale) if axis == 0 else ())
    packed, *by_row = (t if INTERPRETED else host.readable_copy(t, DEVICE) for t in there)
    affine = by_row or [scale.to(DEVICE)] * 2
    given = Source(packed, 4, 21), index.to(DEVICE), 3, 17, *affine, axis
    found = on_kernels(ops.gather_rows, *ops.gather_rows.flat(given))
    assert torch.equal(found, expected)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore::nodebits.core.errors.SaturationWarning")
def test_a_file_of_a_model_on_the_device(tmp_path: Path) -> None:
    case = make_case("sage")
    graph = case.packed.prepare_graph(case.edge_index, NODES)
    features = case.packed.pack_input(case.x)
    case.packed.save_input(features, tmp_path / "x")
    expected = case.packed.predict_nodes(graph, features, [3, 39], [4, 4], seed=5)
    model = case.packed.to(DEVICE)
    kept = model.load_input(tmp_path / "x").on_host(DEVICE)
    assert torch.equal(model.predict_nodes(graph, kept, [3, 39], [4, 4], seed=5).cpu(), expected)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
def test_a_file_is_decoded_on_the_device(tmp_path: Path) -> None:
    x = torch.rand(50, 7, generator=generator())
    path = tmp_path / "x.safetensors"
    nodebits.pack_features(x, path, nodebits.Packing(granularity="row"))
    features = nodebits.PackedFeatures(path)
    found = features.on_host(DEVICE)[[3, 49, 3]]
    assert found.device.type == "cuda" and torch.equal(found.cpu(), features[[3, 49, 3]])
