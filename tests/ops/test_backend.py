"""Choice of the instruction set, threads and forks."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import codes, generator, graph

import flat
from forking import Python
from nodebits import ops
from nodebits.core.errors import UnsupportedIsaError

NAMES = ["reference", "scalar", "avx2", "avx512", "amx", "neon"]


@pytest.mark.parametrize("isa", [*NAMES, "sse9"])
def test_environment_variable(isa: str, python: Python) -> None:
    done = python("from nodebits import ops; print(ops.describe()['isa'])", NODEBITS_ISA=isa)
    if isa in ops.available_isas():
        assert done.stdout.strip() == isa
    else:
        assert done.returncode != 0
        assert "UnsupportedIsaError" in done.stderr and isa in done.stderr
        assert "available: reference" in done.stderr


def test_force_isa_restores() -> None:
    before = ops.current_isa()
    with ops.force_isa("reference"):
        assert ops.current_isa() == "reference"
        with ops.force_isa(ops.available_isas()[-1]):
            assert ops.current_isa() == ops.available_isas()[-1]
        assert ops.current_isa() == "reference"
    assert ops.current_isa() == before
    with pytest.raises(UnsupportedIsaError, match="sse9"), ops.force_isa("sse9"):
        pass


def test_describe() -> None:
    made = ops.describe()
    assert made["isa"] in made["available"]
    assert set(made["available"]) | set(made["unavailable"]) >= set(NAMES)


def test_forked_child_computes(python: Python) -> None:
    program = """
import os, torch
from nodebits import ops
u = torch.randint(0, 16, (200_000, 64), dtype=torch.uint8)
torch.set_num_threads(2)
expected = ops.pack(u, 4)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(ops.pack(u, 4), expected) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = python(program)
    assert done.stdout.strip() == "0", done.stderr


def test_concurrent_callers() -> None:
    from concurrent.futures import ThreadPoolExecutor

    g = generator()
    indptr, indices = graph([20] * 3000, 3000, g)
    packed = ops.pack(codes(3000, 128, 4, g), 4)
    expected = flat.spmm(indptr, indices, packed, 4, 128)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: flat.spmm(indptr, indices, packed, 4, 128), range(24)))
    assert all(torch.equal(m, expected) for m in made)
