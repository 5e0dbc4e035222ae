"""Rounds of propagation in their steps: the bits of the operator."""

from __future__ import annotations

import pytest
import torch

from nodebits.plan.part_kinds import PartKinds
from nodebits.plan.plan import Plan
from nodebits.plan.rounds import stepwise
from nodebits.plan.run import ReferenceRunner
from packed_models import make_case, small_graph

ROUNDS = [
    ([0.0, 0.0], False, 0.1),
    ([0.0], False, 0.0),
    ([0.5, 0.0, -0.25], False, 0.1),
    ([0.0, 0.5], True, 0.0),
]


def plan_of(
    coefficients: list[float], laplacian: bool, teleport: float, factor: bool, columns: int
) -> Plan:
    sums = sum(1 + (c != 0.0) for c in coefficients)
    tables = [torch.rand(sums, columns) + 0.1, torch.rand(sums, columns), torch.rand(sums, columns)]
    values = ["v5" if factor else None, *(f"v{10 + i}" for i in range(3))]
    bits = [2 + i for i in range(sums)]
    steps = [
        {"op": "csr", "args": ["v1", "d0.0", "d0.0"], "outs": [2, 3, 4]},
        {"op": "deg_inv_sqrt", "args": ["v2", None], "outs": [5]},
        {
            "op": "propagate",
            "args": [
                "v2",
                "v3",
                None,
                None,
                "v0",
                *values,
                bits,
                coefficients,
                laplacian,
                teleport,
            ],
            "outs": [6],
        },
        {"op": "relu", "args": ["v6"], "outs": [7]},
    ]
    inputs = [
        {"name": "x", "value": 0, "shape": [None, columns]},
        {"name": "edge_index", "value": 1, "shape": [2, None]},
    ]
    arguments = [{"name": "x", "role": "node"}, {"name": "edge_index", "role": "edges"}]
    constants = {10 + i: table for i, table in enumerate(tables)}
    return Plan.of(inputs, constants, steps, {"value": 7}, arguments, None)


@pytest.mark.parametrize("factor", [True, False])
@pytest.mark.parametrize("rounds", ROUNDS)
def test_steps_have_the_bits_of_the_operator(
    rounds: tuple[list[float], bool, float], factor: bool
) -> None:
    x, edges = small_graph()
    plan = plan_of(*rounds, factor, x.size(1))
    written = stepwise(plan)
    assert "propagate" not in written.steps and written.steps[-1] == "relu"
    assert len(written.paths) == len(written.steps)
    found = [ReferenceRunner(one, None).run({0: x, 1: edges}) for one in (plan, written)]
    assert torch.equal(found[0].view(torch.int32), found[1].view(torch.int32))
    kinds = PartKinds.of(written)
    assert kinds is not None and kinds.axis(7) == "node"
    sums = sum(1 + (c != 0.0) for c in rounds[0])
    assert sum(bool(read) for read in kinds.sources) == sums


def test_other_plans_stay_as_they_are() -> None:
    case = make_case("gcn")
    plan = case.packed.plan(case.x, case.edge_index)
    assert isinstance(plan, Plan) and stepwise(plan) is plan
