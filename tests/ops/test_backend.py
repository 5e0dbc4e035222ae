"""Choice of the instruction set, operator registration, threads and forks."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from operator_inputs import codes, generator, graph

from nodebits import ops
from nodebits.core.bucketed import RowLayout
from nodebits.core.errors import UnsupportedIsaError

NAMES = ["reference", "scalar", "avx2", "avx512", "amx", "neon"]


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("isa", [*NAMES, "sse9"])
def test_environment_variable(isa: str) -> None:
    done = run("from nodebits import ops; print(ops.describe()['isa'])", NODEBITS_ISA=isa)
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


def samples() -> list[tuple[Any, tuple[Any, ...]]]:
    g = generator()
    indptr, indices = graph([2, 0, 3], 5, g)
    x, one = torch.randn(5, 8, generator=g), torch.ones(1)
    u = codes(5, 8, 4, g)
    packed = ops.pack(u, 4)
    acc = u.int()
    where = RowLayout.of(torch.tensor([4, 1, 8, 1, 3]))
    order, counts = where.order, list(where.counts)
    places = where.widths, where.position
    mixed = ops.quantize_pack_bucketed(x, one, torch.zeros(8), -1, *places)
    op = torch.ops.nodebits
    spmm = (indptr, indices, packed, 4, 8, *[None] * 4)
    product = ([packed], [4], [8], [packed], [4], [True], [torch.ones(5)], [None], [None], [None])
    quantizer = ([one, one], [one, one], [4, 8], [None, None], [], [], [])
    eight, wide = torch.ones(8), where.widths
    shift = torch.zeros(5, dtype=torch.uint8)
    several = (
        *([one, torch.ones(5), one], [one, eight, eight], [4, 8, 8], [None] * 3),
        *([None, wide, wide], [None, where.position, None], [None, None, shift]),
    )
    product_of_mixed = (mixed, order, counts, 8, packed, 4, True, torch.ones(5), *[None] * 4)
    return [
        (op.pack.default, (u, 4)),
        (op.unpack.default, (packed, 4, 8)),
        (op.quantize_pack.default, (x, one, one, -1, 4, torch.ones(5))),
        (op.fake_quantize.default, (x, one, one, -1, 4)),
        (op.fake_quantize_backward.default, (x, x, one, one, -1, 4, 0)),
        (op.gemm.default, (packed, 4, 8, packed, 4, True)),
        (op.quantize_pack_bucketed.default, (x, one, torch.zeros(8), -1, *places)),
        (op.unpack_bucketed.default, (mixed, order, counts, 8, torch.zeros(5).byte())),
        (op.nearest_group.default, (torch.rand(5), torch.arange(3.0))),
        (op.spmm.default, (indptr, indices, packed, 4, 8)),
        (op.spmm_weighted.default, (indptr, indices, packed, 4, 8, codes(5, 2, 8, g))),
        (op.rescale.default, (acc, torch.ones(8), torch.ones(8), torch.ones(5, 2))),
        (op.edge_softmax.default, (indptr, indices, x, x[:3].contiguous(), 0.2, 8)),
        (op.fused_spmm.default, (*spmm, torch.ones(8), *[None] * 6, True, *quantizer)),
        (op.fused_spmm.default, (*spmm, torch.ones(8), *[None] * 6, False, *[[]] * 7)),
        (op.fused_gemm.default, (*product, True, *quantizer)),
        (op.fused_gemm.default, (*product, True, *quantizer, torch.ones(5), torch.ones(5))),
        (op.fused_gemm.default, (*product, True, *several)),
        (op.fused_gemm_bucketed.default, (*product_of_mixed, True, *several)),
        (op.fused_gemm_bucketed.default, (*product_of_mixed, True, *[[]] * 7)),
        (op.coo_to_csr.default, (indices.long(), indices.long(), 5)),
    ]


@pytest.mark.parametrize("op, args", samples(), ids=lambda v: getattr(v, "_name", ""))
def test_opcheck(op: Any, args: tuple[Any, ...]) -> None:
    torch.library.opcheck(op, args)


def test_forked_child_computes() -> None:
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
    done = run(program)
    assert done.stdout.strip() == "0", done.stderr


def test_concurrent_callers() -> None:
    from concurrent.futures import ThreadPoolExecutor

    g = generator()
    indptr, indices = graph([20] * 3000, 3000, g)
    packed = ops.pack(codes(3000, 128, 4, g), 4)
    expected = ops.spmm(indptr, indices, packed, 4, 128)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: ops.spmm(indptr, indices, packed, 4, 128), range(24)))
    assert all(torch.equal(m, expected) for m in made)
