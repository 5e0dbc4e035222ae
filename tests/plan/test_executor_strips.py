"""Steps that run row by row on a few rows at a time give what they give of all rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import NAMES, Case, results, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nodebits.core.errors import NonFiniteError, ShapeError
from nodebits.ops.backends.cpu import kernels
from nodebits.plan.reference import meaning

# So many entries that strips pay, and the last rows are fewer than others.
N, C = 2500, 131
# Torch rounds roots in its own way.
UNARY = ["relu", "neg", "abs", "inverse"]
BINARY = ["add", "sub", "mul", "div", "maximum", "minimum"]


def alone(case: Case, *outputs: str, threads: int = 1) -> list[Tensor]:
    """The same, each step by itself."""
    run = kernels.plan_run(case.plan(*outputs))
    for one in case.values():
        run.set(*one)
    for step in range(len(case.steps)):
        run.steps(step, step + 1, threads)
    return results([run.get(int(ref[1:])) for ref in outputs])


def agree(case: Case, *outputs: str) -> list[Tensor]:
    """What a run of all steps gives, after steps by themselves gave the same."""
    found = case.everywhere(*outputs)
    assert any(case.plan(*outputs).strips)
    assert all(map(same, found, alone(case, *outputs)))
    return found


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_chain(data: Any) -> None:
    case = Case()
    tensors = {
        case.input(random(*shape, seed=seed)): random(*shape, seed=seed)
        for seed, shape in enumerate([(N, C), (N, C), (N, 1), (1, C), (C,), (1,)])
    }
    whole = list(tensors)[:2]
    for _ in range(data.draw(st.integers(2, 6))):
        first = data.draw(st.sampled_from(whole))
        op = data.draw(st.sampled_from(UNARY + BINARY))
        args = [first]
        if op in BINARY:
            number = [] if op.endswith("imum") else [0.5]
            args.append(data.draw(st.sampled_from([*tensors, *number])))
        made = case.step(op, *args)
        tensors[made] = meaning(op)(*[tensors[a] if isinstance(a, str) else a for a in args])
        whole.append(made)
    outputs = data.draw(st.lists(st.sampled_from(whole[2:]), min_size=1, unique=True))
    found = agree(case, *outputs)
    assert all(same(got, tensors[ref]) for got, ref in zip(found, outputs, strict=True))


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_from_codes_to_codes(bits: int) -> None:
    """The row of a node itself, added to a sum, and the codes of both."""
    codes = torch.randint(0, 1 << bits, (N, C), dtype=torch.uint8)
    packed = meaning("pack")(codes, bits)
    case, sums = Case(), random(N, C)
    step, zero = torch.tensor([0.25]), torch.tensor([3.0])
    floats = case.step("float", case.step("unpack", case.input(packed), bits, C))
    own = case.step("mul", case.step("sub", floats, zero), step)
    total = case.step("add", own, case.input(sums))
    case.step("check_finite", total, outs=0)
    fields = case.step("quantize_pack", total, step, zero, -1, bits, None)
    by_row = case.step("pack_own", own, bits, True, outs=2)
    expected = (codes.float() - 3.0) * 0.25
    found = agree(case, fields, *by_row)
    assert same(found[0], meaning("quantize_pack")(expected + sums, step, zero, -1, bits, None))
    both = meaning("pack_own")(expected, bits, True)
    assert all(map(same, found[1:], both))


def test_columns_of_rows() -> None:
    case, x = Case(), random(N, 2 * C)
    value = case.input(x)
    first = case.step("slice", value, 1, 0, C, 1)
    last = case.step("slice", value, -1, C, None, 1)
    out = case.step("relu", case.step("mul", first, last))
    (found,) = agree(case, out)
    assert same(found, (x[:, :C] * x[:, C:]).relu())
    # Of other rows there are fewer.
    case = Case()
    value = case.input(x)
    some = case.step("slice", case.step("neg", value), 0, 7, None, 1)
    (found,) = case.everywhere(case.step("relu", some))
    assert same(found, (-x)[7:].relu())


def test_what_follows_from_no_row_ends_a_strip() -> None:
    case = Case()
    x = case.input(random(N, C))
    first = case.step("mul", case.step("relu", x), 2.0)
    other = case.step("add", case.input(random(C, 3)), 1.0)
    wide = case.step("add", first, x)
    x0, y0 = random(N, C), random(C, 3)
    found = agree(case, other, wide)
    assert same(found[0], y0 + 1.0) and same(found[1], x0.relu() * 2.0 + x0)


# What has as many rows as are taken at a time, and is broadcast over rows or makes other ones.
BESIDE: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "as many rows as a block": ((2048, 128), (128, 1, 128)),
    "more dimensions": ((1024, 256), (64, 1, 256)),
    "a row at a time": ((40, 9000), (1, 1, 9000)),
    "a column": ((4096, 64), (4096, 1)),
    "the rows of one": ((4096, 64), (1, 64)),
    "three": ((300, 8, 128), (8, 128)),
    "three and one": ((300, 8, 128), (1, 8, 1)),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", BESIDE)
def test_other_shapes_beside_the_rows(name: str, turned: bool) -> None:
    rows, other = (random(*shape, seed=at) for at, shape in enumerate(BESIDE[name]))
    case = Case()
    refs = [case.step("relu", case.input(rows)), case.input(other)]
    made = case.step("sub", *(refs[::-1] if turned else refs))
    out = case.step("abs", made)
    (found,) = agree(case, out)
    pair = (other, rows.relu()) if turned else (rows.relu(), other)
    assert same(found, (pair[0] - pair[1]).abs())
    # The same of a constant.
    case = Case()
    refs = [case.step("relu", case.input(rows)), case.constant(other)]
    made = case.step("sub", *(refs[::-1] if turned else refs))
    (found,) = agree(case, case.step("abs", made))
    assert same(found, (pair[0] - pair[1]).abs())


def test_scales_of_rows_are_no_rows() -> None:
    case, x = Case(), random(4096, 64)
    _, scale = case.step("pack_own", case.input(x), 4, True, outs=2)
    out = case.step("neg", case.step("mul", scale, case.input(x[:, :1].contiguous())))
    (found,) = agree(case, out)
    scales = meaning("pack_own")(x, 4, True)[1]
    assert same(found, -(scales * x[:, :1]))


@pytest.mark.parametrize("shape", [[-1], [1, -1]])
def test_a_view_of_an_operand_is_read_whole(shape: list[int]) -> None:
    case, x = Case(), random(1024, 1)
    u = case.step("neg", case.input(x))
    wide = case.step("sub", u, case.step("view", u, shape))
    v = case.step("relu", u)
    t = case.step("view", v, shape)
    out = case.step("mul", wide, t)
    last = case.step("neg", v)
    found = agree(case, out, last)
    assert same(found[0], (-x - -x.view(1, -1)) * (-x).relu().view(1, -1))
    assert same(found[1], -((-x).relu()))


@pytest.mark.parametrize("count", [8192, 8199])
def test_rows_that_are_no_part_of_others_are_refused(count: int) -> None:
    case = Case()
    made = case.step("relu", case.input(random(count, 64)))
    out = case.step("neg", case.step("add", made, case.input(random(256, 64))))
    with pytest.raises(ShapeError) as wrong:
        case.run(out)
    with pytest.raises(ShapeError) as expected:
        alone(case, out)
    assert str(wrong.value) == str(expected.value)


@pytest.mark.parametrize("row", [0, 1700, N - 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_names_the_first_value(row: int, threads: int) -> None:
    case, x = Case(), random(N, C)
    x[row, 5] = torch.inf
    x[N - 1, C - 1] = torch.nan
    made = case.step("add", case.step("mul", case.input(x), 2.0), 1.0)
    case.step("check_finite", made, outs=0)
    out = case.step("neg", made)
    with pytest.raises(NonFiniteError) as wrong:
        case.run(out, threads=threads)
    with pytest.raises(NonFiniteError) as expected:
        alone(case, out)
    assert str(wrong.value) == str(expected.value)
    # What is wrong in one run is right in the next, in the same memory.
    good = random(N, C)
    for _ in range(2):
        (found,) = results(case.plan(out).run(case.values(good), threads))
        assert same(found, -(good * 2.0 + 1.0))


def test_operands_that_do_not_fit() -> None:
    case = Case()
    made = case.step("relu", case.input(random(N, C)))
    out = case.step("neg", case.step("add", made, case.input(random(N - 1, C))))
    with pytest.raises(ShapeError):
        case.run(out)


def test_arguments_are_not_written_to() -> None:
    case, x = Case(), random(N, C)
    out = case.step("neg", case.step("mul", case.input(x), 3.0))
    plan, before = case.plan(out), x.clone()
    for threads in (1, 2):
        (found,) = results(plan.run(case.values(), threads))
        assert same(found, -(before * 3.0)) and same(x, before)
    assert NAMES[x.dtype] == "float32"
