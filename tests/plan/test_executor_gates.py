"""Products of two tables at every edge: their sum, and the largest of them."""

from __future__ import annotations

import torch
from executor_case import Case, reference, same

from nodebits import ops
from nodebits.ops import Edges, Source
from nodebits.ops.definitions.gates import LEVELS, GatedProduct


def given(largest: bool) -> GatedProduct:
    indptr = torch.tensor([0, 3, 3, 4, 9])
    edges = Edges(indptr, torch.randint(5, (9,), dtype=torch.int32))
    counts = [5, 4, 5, 4, 9, 9]
    rows = [Source(torch.randint(256, (n, 11), dtype=torch.uint8), 8, 11) for n in counts]
    tables = [torch.randint(256, (LEVELS,), dtype=torch.uint8) for _ in range(2)]
    return GatedProduct(edges, rows, torch.randperm(9), *tables, torch.rand(1), largest)


def test_sums_and_the_largest() -> None:
    for largest in (False, True):
        args, case = given(largest), Case()
        (found,) = case.everywhere(case.step("gated_product", *ops.gated_product.flat(args)))
        assert same(found, reference(ops.gated_product, *args))


def test_a_file_of_before_there_was_a_choice_holds_sums() -> None:
    args, case = given(False), Case()
    (found,) = case.everywhere(case.step("gated_product", *ops.gated_product.flat(args)[:-1]))
    assert same(found, reference(ops.gated_product, *args))
