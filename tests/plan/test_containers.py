"""Arguments that hold others, taken apart and put together again."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data, HeteroData

from nodebits.plan.containers import (
    ALL,
    Unfit,
    at_place,
    is_container,
    leaves_of,
    note_reads,
    put_together,
)
from typed_models import KINDS, typed_data

X = torch.rand(4, 2)


def test_dictionaries() -> None:
    value = {"a": X, ("a", "to", "b"): None}
    container, leaves = leaves_of(0, "x", value)
    assert [leaf.place for leaf in leaves] == [(0, "a"), (0, ("a", "to", "b"))]
    assert [leaf.name for leaf in leaves] == ["x[a]", "x[a,to,b]"]
    assert container is not None
    args, keywords = put_together({0: container}, [(leaf.place, leaf.value) for leaf in leaves])
    assert args == [value] and not keywords
    assert at_place([value], {}, (0, "a")) is X
    with pytest.raises(Unfit, match="the key 3"):
        leaves_of(0, "x", {3: X})


def test_slashes_of_types_are_none_of_names() -> None:
    _, leaves = leaves_of("x", "x", {"http://a/b": X, "100%": X})
    assert [leaf.name for leaf in leaves] == ["x[http:%2F%2Fa%2Fb]", "x[100%25]"]


@pytest.mark.parametrize("data", [typed_data(), Data(x=X, edge_index=torch.zeros(2, 3).long())])
def test_data(data: HeteroData | Data) -> None:
    container, leaves = leaves_of("data", "data", data)
    assert container is not None
    made = put_together({"data": container}, [(leaf.place, leaf.value) for leaf in leaves])[1]
    assert made["data"].to_dict().keys() == data.to_dict().keys()
    assert type(made["data"]) is type(data)
    for leaf in leaves:
        assert at_place([], made, leaf.place) is leaf.value


def test_other_containers_are_left_alone() -> None:
    class Own(dict):  # type: ignore[type-arg]
        pass

    assert not is_container(Own(a=X)) and not is_container((X, X))
    assert leaves_of(0, "x", (X, X))[0] is None


def test_reads_are_noted() -> None:
    data, reads = typed_data(), set()
    note_reads(0, data, reads)
    assert data.x_dict.keys() == {"paper", "author"}
    assert (0, "paper", "x") in reads and (0, KINDS[0], "x") in reads
    assert (0, "paper", ALL) not in reads and (0, "paper", "y") not in reads
    assert not hasattr(data["paper"], "y")
    assert (0, "paper", "y") in reads
    list(data["author"].keys())
    assert (0, "author", ALL) in reads


def test_reads_of_plain_data_are_noted() -> None:
    data, reads = Data(x=X), set()
    note_reads("data", data, reads)
    assert data.x is X and data.edge_index is None
    assert {("data", "x"), ("data", "edge_index")} <= reads
