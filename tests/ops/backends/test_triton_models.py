"""Packed models whose operators are the kernels in Triton's language: the bits of the CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from on_triton import DEVICE, INTERPRETED, needs_triton, serving

from nodebits import ops
from nodebits.ops.operator import Operator
from nodebits.plan.plan import Plan
from packed_models import Case, make_case

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]

MODELS = [
    ("gcn", "uniform", 4, {}),
    ("gcn", "uniform", 8, {"features": 300}),  # raw features, each row with its own scale
    ("gcn", "a2q", 4, {}),
    ("gcn", "sgquant", 4, {}),
    ("gcn", "degree-quant", 3, {"norm": "batch"}),
    ("gat", "uniform", 8, {}),
    ("gin", "uniform", 4, {"task": "graph"}),
    ("sage", "uniform", 2, {}),
]


def on_device(case: Case) -> tuple[torch.Tensor, Counter[str]]:
    """What the model says there, and which operators it called."""
    from nodebits.ops.backends.triton import calls

    used: Counter[str] = Counter()
    call = calls.call

    def counted(op: Operator[..., Any], checked: Any) -> Any:
        used[op.name] += 1
        return call(op, checked)

    inputs = [t.to(DEVICE) for t in (case.x, case.edge_index)]
    extra = {name: t.to(DEVICE) for name, t in case.extra.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "call", counted)
        # No plans, and no compiled functions beside the operators.
        with ops.force_isa("reference"), serving():
            found = case.packed.to(DEVICE).predict(*inputs, **extra)
    return found.cpu(), used


@pytest.mark.parametrize(("name", "method", "bits", "options"), MODELS)
def test_the_bits_of_the_cpu(name: str, method: str, bits: int, options: dict[str, Any]) -> None:
    case = make_case(name, method, bits, **options)
    expected = case.packed.predict(case.x, case.edge_index, **case.extra)
    found, used = on_device(case)
    assert torch.equal(found, expected)
    fused = {"fused_gemm", "fused_spmm", "fused_gemm_bucketed"}
    assert fused & set(used), used


@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
def test_there_and_back() -> None:
    case = make_case("gcn", "a2q")
    expected = case.packed.predict(case.x, case.edge_index)
    there = case.packed.to(DEVICE)
    plan = there.plan(case.x.to(DEVICE), case.edge_index.to(DEVICE))
    assert isinstance(plan, Plan)
    back = there.to("cpu")
    assert torch.equal(back.predict(case.x, case.edge_index), expected)
