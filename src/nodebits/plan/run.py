"""A plan on arguments: its compiled steps, and between them those that Python runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.graph import Graph
from nodebits.graph.adjacency import as_graph
from nodebits.plan.plan import Plan
from nodebits.plan.reference import meaning
from nodebits.plan.trace import leaves, mapped


class ReferenceRunner:
    """Runs every step by its definition.

    Args:
        plan: The plan.
        module: What it was made of, for steps that are modules.
    """

    def __init__(self, plan: Plan, module: nn.Module | None) -> None:
        self._about, self._module = plan.about, module
        self._constants = {
            int(number): plan.constants[name] for number, name in self._about["constants"].items()
        }

    def run(self, given: Mapping[int, Tensor]) -> Any:
        """What the module returns.

        Args:
            given: Tensors of the inputs, and of values that are known already, by number.
        """
        values = {**self._constants, **given}
        with torch.no_grad():
            for step in self._about["steps"]:
                if step["outs"] and all(out in given for out in step["outs"]):
                    continue
                args = [evaluated(arg, values.__getitem__) for arg in step["args"]]
                if step["op"] == "module":
                    made = run_module(self._module, *args)
                else:
                    made = meaning(step["op"])(*args)
                values.update(zip(step["outs"], results(made), strict=False))
        return result_of(self._about["outputs"], values.__getitem__)


def evaluated(arg: Any, value: Callable[[int], Tensor]) -> Any:
    """An argument of a step: values, sizes and texts in place of what stands for them."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, str):
            return leaf
        kind, rest = leaf[0], leaf[1:]
        if kind == "=":
            return rest
        if kind == "v":
            return value(int(rest))
        if kind == "d":
            number, axis = rest.split(".")
            return value(int(number)).size(int(axis))
        number, plus = rest.split("+")
        return int(value(int(number))) + int(plus)

    return mapped(arg, one)


def results(made: Any) -> list[Tensor]:
    """The tensors that a step returns."""
    if made is None:
        return []
    if isinstance(made, Tensor):
        return [made]
    found: list[Tensor] = []
    mapped(made, lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None)
    return found


def result_of(about: Any, value: Callable[[int], Tensor]) -> Any:
    """What a plan returns, of the description of its outputs."""
    if isinstance(about, list):
        return [result_of(part, value) for part in about]
    if "value" in about:
        return value(about["value"])
    if "dict" in about:
        return {key: result_of(part, value) for key, part in about["dict"].items()}
    if "items" in about:
        return {as_key(key): result_of(part, value) for key, part in about["items"]}
    if "tuple" in about:
        return tuple([result_of(part, value) for part in about["tuple"]])
    return None


def as_key(key: Any) -> Any:
    """A key of a dictionary, of what stands for it in JSON."""
    return tuple(key) if isinstance(key, list) else key


def run_module(root: nn.Module | None, path: str, args: list[Any], keywords: list[Any]) -> Any:
    """A module as a step."""
    if root is None:
        raise RuntimeError(f"the plan has the module {path!r} as a step, and there is no model")
    given = [_argument(arg) for arg in args]
    return root.get_submodule(path)(*given, **{name: _argument(value) for name, value in keywords})


def _argument(arg: Any) -> Any:
    if not isinstance(arg, list) or not arg:
        return arg
    kind, *parts = arg
    if kind == "graph":
        indptr, indices, perm, num_src, weight, *form = parts
        graph = Graph(indptr, indices, num_src, perm, weight, *form)
        return as_graph(graph, num_src, graph.num_dst)
    if kind == "dict":
        return {as_key(key): _argument(part) for key, part in parts}
    if kind in ("tuple", "list"):
        made = [_argument(part) for part in parts]
        return tuple(made) if kind == "tuple" else made
    return arg


def values_of(args: Any) -> set[int]:
    """Values that arguments of a step name."""
    found = set()
    for leaf in leaves(args):
        if isinstance(leaf, str) and leaf[0] != "=":
            found.add(int(leaf[1:].replace("+", ".").split(".")[0]))
    return found


def reads_of(about: Mapping[str, Any]) -> frozenset[int]:
    """Values that the steps of a plan take.

    Steps that make the rows of a graph count for nothing: they are left out where these are given.

    Args:
        about: JSON of the plan.
    """
    known = [one["graph"] for one in about["inputs"] if "graph" in one]
    given = [[graph["indptr"], graph["indices"], graph["perm"]] for graph in known]
    return frozenset(
        n
        for step in about["steps"]
        if not (step["op"] == "csr" and step["outs"] in given)
        for n in values_of(step["args"])
    )
