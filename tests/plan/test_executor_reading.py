"""Plans that are damaged, inputs that do not fit, and what is kept between runs."""

from __future__ import annotations

import json
import random
import threading
from typing import Any

import pytest
import torch
from executor_case import Case, results, same
from torch import Tensor

from nodebits import _kernels, ops  # type: ignore[attr-defined]
from nodebits.core.errors import (
    FileFormatError,
    NodebitsError,
    NodeIndexError,
    PlanRefused,
    ShapeError,
)
from nodebits.graph import as_graph
from nodebits.plan.reference import meaning


def gcn(nodes: int = 30, cols: int = 16) -> Case:
    """A layer with most kinds of arguments: structure, a product, a sum, pooling."""
    case = Case()
    x = case.input(torch.rand(nodes, 24), "x", [None, 24])
    index = case.input(torch.randint(0, nodes, (2, 4 * nodes)), "edge_index", [2, None])
    batch = case.input(torch.arange(nodes) // 10, "batch", [None])
    case.inputs[1]["graph"] = {"indptr": 3, "indices": 4, "perm": 5}
    ptr, idx, perm = case.step("csr", index, "d0.0", "d0.0", outs=3)
    looped = case.step("self_loops", ptr, idx, perm, "d0.0", outs=2)
    factor = case.step("deg_inv_sqrt", looped[0], None)
    column = case.step("view", factor, [-1, 1])
    weight = ops.pack(torch.randint(0, 16, (cols, 24), dtype=torch.uint8), 4)
    sums = torch.randn(cols)
    quantizer: list[Any] = [[torch.rand(1)], [torch.ones(1)], [4], [factor], [None], [None], [None]]
    rows = case.step(
        "feature_product", x, 4, False, weight, 4, False, torch.rand(cols), sums, None, False,
        *quantizer, None, None,
    )  # fmt: skip
    degree = case.step("degree", looped[0])
    offset = case.step("view", degree, ["d0.0", 1])
    y = case.step(
        "fused_spmm", *looped, None, None, rows, 4, cols, 0, None, None, None, None,
        torch.rand(cols), torch.ones(1), offset, column, torch.randn(cols), True,
        *[[] for _ in range(7)], None, None,
    )  # fmt: skip
    top = case.step("max_index", batch)
    case.step("segment_sum", y, batch, f"n{top[1:]}+1")
    return case


def last(case: Case) -> str:
    return f"v{case.steps[-1]['outs'][0]}"


def test_inputs_that_do_not_fit() -> None:
    case = gcn()
    plan = case.plan(last(case))
    x, index, batch = case.given
    plan.run(case.values(), 1)
    for given, error, message in [
        ((x[:, :23], index, batch), ShapeError, r'"x" is float32 \[30, 23\].*float32 \[\*, 24\]'),
        ((x.double(), index, batch), ShapeError, r'"x" is float64'),
        ((x, index.int(), batch), ShapeError, r'"edge_index" is int32'),
        ((x, index[:1], batch), ShapeError, r"\[2, \*\]"),
        ((x[:20], index, batch), NodeIndexError, "for 20 nodes"),
        ((x, index, batch[:20]), ShapeError, "one index per row"),
        ((x, index, batch - 1), NodeIndexError, '"batch"'),
    ]:
        with pytest.raises(error, match=message):
            plan.run(case.values(*given), 1)
    with pytest.raises(ShapeError, match=r'"batch" was not given'):
        plan.run(case.values()[:2], 1)
    with pytest.raises(ShapeError, match="cannot be set"):
        plan.run([*case.values(), (999, x.data_ptr(), "float32", (1,))], 1)
    with pytest.raises(ShapeError, match="multiple of 4"):
        plan.run([(0, x.data_ptr() + 1, "float32", (29, 24)), *case.values()[1:]], 1)
    expected = case.run(last(case))
    assert same(results(plan.run(case.values(), 1))[0], expected[0])


def test_empty_graphs() -> None:
    case = gcn()
    plan = case.plan(last(case))
    x, index, batch = case.given
    for nodes, edges in ((0, 0), (1, 0), (5, 0)):
        given = x[:nodes], index[:, :edges], batch[:nodes]
        (made,) = results(plan.run(case.values(*given), 2))
        assert made.shape == (1 if nodes else 0, 16)


def test_a_prepared_graph_and_what_is_kept_with_it() -> None:
    case = gcn()
    plan = case.plan(last(case))
    x, index, batch = case.given
    (expected,) = results(plan.run(case.values(), 1))
    graph = as_graph(index, 30)
    assert graph.perm is not None
    parts = [(3, graph.indptr), (4, graph.indices), (5, graph.perm)]
    names = {3: "int64", 4: "int32", 5: "int64"}
    values = case.values(x, index, batch)
    values = [values[0], values[2]]
    values += [(n, t.data_ptr(), names[n], tuple(t.shape)) for n, t in parts]
    store = _kernels.GraphStore()
    for keep in (None, store, store, store):
        assert same(results(plan.run(values, 1, keep))[0], expected)
    other = case.plan(last(case))
    assert same(results(other.run(values, 1, store))[0], expected)
    # What was made of the graph is not made again, though its sizes are those of the features.
    own = Case()
    own.input(x)
    rows = [own.input(t) for t in (graph.indptr, graph.indices)]
    looped = own.step("self_loops", *rows, None, "d0.0", outs=2)
    own.inputs[0]["graph"] = {"indptr": 1, "indices": 2}
    plan, store = own.plan(looped[1]), _kernels.GraphStore()
    (kept,) = results(plan.run(own.values(), 1, store))
    own.given[2].fill_(7)
    assert same(results(plan.run(own.values(), 1, store))[0], kept)
    assert not same(results(plan.run(own.values(), 1))[0], kept)


def test_results_outlive_the_run_and_the_plan() -> None:
    case = gcn()
    plan = case.plan(last(case))
    (first,) = results(plan.run(case.values(), 1))
    before = first.clone()
    case.given[0] = case.given[0] * 2
    results(plan.run(case.values(), 1))
    del plan
    assert same(first, before)


def test_an_output_that_is_an_input_or_a_constant_is_a_copy() -> None:
    case = Case()
    x, c = case.input(torch.rand(3, 4)), case.constant(torch.rand(2))
    flat = case.step("view", x, [-1])
    made = case.run(x, c, flat)
    given = case.given[0].clone()
    for t in made:
        t.zero_()
    assert same(case.given[0], given)
    assert same(case.run(c)[0], case.constants["c1"])


def test_ranges_of_steps_around_what_python_makes() -> None:
    case = Case()
    x = case.input(torch.rand(6, 4))
    y = case.step("add", x, 1.0)
    z = case.step("module", "=layers.0", y, x)
    e = case.step("exp", z)
    case.steps[-1]["approx"] = True
    w = case.step("mul", e, y)
    plan = case.plan(w, z)
    with pytest.raises(PlanRefused, match=r"layers\.0"):
        plan.run(case.values(), 1)
    run = _kernels.Run(plan)
    for factor in (1.0, 2.0):
        run.set(0, case.given[0].data_ptr(), "float32", (6, 4))
        run.steps(0, 1, 1)
        (middle,) = results([run.get(int(y[1:]))])
        assert same(middle, case.given[0] + 1)
        own = (middle * factor).contiguous()
        run.set(int(z[1:]), own.data_ptr(), "float32", (6, 4))
        exp = own.exp()
        run.set(int(e[1:]), exp.data_ptr(), "float32", (6, 4))
        run.steps(3, 4, 1)
        made = results([run.get(int(w[1:])), run.get(int(z[1:]))])
        run.clear()
        assert same(made[0], exp * middle) and same(made[1], own)


def test_concurrent_runs_of_one_plan() -> None:
    case = gcn(300)
    plan = case.plan(last(case))
    (expected,) = results(plan.run(case.values(), 1))
    wrong: list[Tensor] = []

    def serve() -> None:
        for _ in range(50):
            (made,) = results(plan.run(case.values(), 2))
            if not same(made, expected):
                wrong.append(made)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def read(text: str, constants: dict[str, Tensor] | None = None) -> Any:
    return _kernels.Plan(text, constants or {})


EMPTY = {"version": 1, "inputs": [], "constants": {}, "steps": [], "outputs": {"tuple": []}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "byte 0"),
        ("[1, 2", "no ']'"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": 01}', "no '}' at byte 7"),
        ("[1,]", "byte 3"),
        ('"\\ud800"', "surrogate"),
        ("[" * 300 + "]" * 300, "too deep"),
        ("[99999999999999999999]", "too large"),
        ("[]", "no JSON object"),
        ("{}", "version"),
        (json.dumps({**EMPTY, "version": 2}), "version 2"),
        (json.dumps({**EMPTY, "outputs": {"value": 3}}), "value 3"),
        (json.dumps({**EMPTY, "constants": {"0": "c"}}), '"c" is missing'),
        (json.dumps({**EMPTY, "constants": {"x": "c"}}), "no number"),
        (json.dumps({**EMPTY, "steps": [{"op": "fly", "args": [], "outs": []}]}), "no such step"),
        (json.dumps({**EMPTY, "steps": [{"op": "relu", "args": ["v9"], "outs": [1]}]}), "value 9"),
        (json.dumps({**EMPTY, "steps": [{"op": "full", "args": [[], 1], "outs": []}]}), "more"),
        (json.dumps({**EMPTY, "steps": [{"op": "full", "args": [], "outs": [1]}]}), "a list"),
        (json.dumps({**EMPTY, "steps": [{"op": "full", "args": [[], 1, 2], "outs": [1]}]}), "3"),
        (
            json.dumps({**EMPTY, "steps": [{"op": "full", "args": [[], 1], "outs": [1, 1]}]}),
            "twice",
        ),
        (json.dumps({**EMPTY, "steps": [{"op": "relu", "args": ["x5"], "outs": [1]}]}), "x5"),
    ],
)
def test_damage_has_a_sentence(text: str, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        read(text)


def test_numbers_and_texts_of_json() -> None:
    for number in ("1.5", "-0.0", "1e3", "2E-2", "1e999", "-1e999", "1e-999", "7"):
        plan = read(
            json.dumps({**EMPTY, "outputs": {"value": 1}}).replace(
                '"steps": []', f'"steps": [{{"op": "full", "args": [[1], {number}], "outs": [1]}}]'
            )
        )
        (made,) = results(plan.run([], 1))
        assert same(made, torch.tensor([float(number)]))


def test_random_damage_is_refused_or_runs() -> None:
    case = gcn()
    text = case.json(last(case))
    rng = random.Random(3)
    refused = 0
    for _ in range(1500):
        damaged = list(text)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(damaged))
            what = rng.random()
            if what < 0.4:
                damaged[at] = rng.choice('0123456789[]{},:"vdn.-+')
            elif what < 0.7:
                del damaged[at]
            else:
                damaged.insert(at, rng.choice('0123456789[]{},"vdn'))
        try:
            read("".join(damaged), case.constants).run(case.values(), 1)
        except (NodebitsError, UnicodeError):
            refused += 1
    assert refused > 1000


def test_numbers_of_sizes_move_indices() -> None:
    case = Case()
    x, ids = case.input(torch.rand(5, 2)), case.input(torch.tensor([[0, 3, -1], [2, 1, 7]]))
    number = case.step("number", [f"d{x[1:]}.0", f"d{ids[1:]}.1", "=add", 2, "=mul"])
    moved = case.step("shift", ids, f"n{number[1:]}+0")
    assert torch.equal(case.everywhere(number, moved)[0], torch.tensor([16]))
    assert torch.equal(case.everywhere(number, moved)[1], case.given[1] + 16)
    assert torch.equal(meaning("number")([5, 3, "add", 2, "mul"]), torch.tensor([16]))


@pytest.mark.parametrize("terms", [[1, "=add"], [1, 2], ["=add"], [1, 2, "=pow"]])
def test_malformed_numbers_are_refused(terms: list[Any]) -> None:
    case = Case()
    case.step("number", terms)
    with pytest.raises(FileFormatError, match="number"):
        case.plan("v0")


def test_numbers_that_are_none_leave_the_plan() -> None:
    case = Case()
    case.input(torch.rand(5, 2))
    half = case.step("number", ["d0.0", 2, "=div"])
    with pytest.raises(PlanRefused, match="another way"):
        case.run(half)
