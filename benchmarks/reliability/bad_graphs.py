"""R12: every bad graph gets a typed error that says where, from packed and prepared models.

python benchmarks/reliability/bad_graphs.py
"""

from __future__ import annotations

import time
from typing import Any

import torch
from record import Result, record
from torch import Tensor

from nodebits.core.errors import NodebitsError
from nodebits.graph import Graph

from packed_models import NODES, make_case, threads  # isort: skip  found by way of record


def changed(edges: Tensor, row: int, at: int, value: int) -> Tensor:
    """The edges with one index put to ``value``."""
    edges = edges.clone()
    edges[row, at] = value
    return edges


def csr(indptr: list[int], indices: list[int], columns: int = NODES) -> Graph:
    """A graph as a user might build it."""
    return Graph(torch.tensor(indptr), torch.tensor(indices, dtype=torch.int32), columns)


def sparse(pointer: list[int], columns: list[int], values: list[float]) -> Tensor:
    """A CSR matrix that torch did not check."""
    parts = torch.tensor(pointer), torch.tensor(columns), torch.tensor(values)
    with torch.sparse.check_sparse_tensor_invariants(False):
        return torch.sparse_csr_tensor(*parts, size=(NODES, NODES))


def bad_graphs(edges: Tensor) -> dict[str, tuple[Any, str]]:
    """Graphs by what is wrong with them, and what the message must hold."""
    ends = [0, *[3] * NODES]
    listed: dict[str, tuple[Any, str]] = {
        "float edges": (edges.float(), "float32"),
        "double edges": (edges.double(), "float64"),
        "bool edges": (edges.bool(), "bool"),
        "complex edges": (edges.to(torch.complex64), "complex64"),
        "one row": (edges[0], "[2, num_edges]"),
        "three rows": (torch.cat([edges, edges[:1]]), "[2, num_edges]"),
        "transposed": (edges.t(), "[2, num_edges]"),
        "three dimensions": (edges[None], "[2, num_edges]"),
        "a number": (torch.tensor(3), "[2, num_edges]"),
        "a list": (edges.tolist(), "list"),
        "NumPy": (edges.numpy(), "ndarray"),
        "None": (None, "NoneType"),
        "text": ("edges", "str"),
        "meta": (edges.to("meta"), "meta"),
        "matrix too small": (torch.eye(NODES - 1).to_sparse_csr(), f"{NODES - 1}"),
        "matrix too large": (torch.eye(NODES + 1).to_sparse_coo(), f"{NODES + 1}"),
        "graph too small": (csr([0, *[0] * (NODES - 1)], [], NODES - 1), f"{NODES - 1}"),
        "graph too large": (csr([0, *[0] * (NODES + 1)], [], NODES + 1), f"{NODES + 1}"),
        "CSR: index = N": (csr(ends, [0, 1, NODES]), f"{NODES}"),
        "CSR: index below 0": (csr(ends, [0, -1, 2]), "-1"),
        "CSR: falls": (csr([0, 3, 2, *[3] * (NODES - 2)], [0, 1, 2]), "indptr"),
        "CSR: ends early": (csr([0, *[2] * NODES], [0, 1, 2]), "indptr"),
        "CSR: ends late": (csr([0, *[4] * NODES], [0, 1, 2]), "indptr"),
        "CSR: begins late": (csr([1, *[3] * NODES], [0, 1, 2]), "indptr"),
        "CSR: far end": (csr([0, *[2**40] * NODES], [0, 1, 2]), "indptr"),
        "CSR: below 0": (csr([0, -5, *[3] * (NODES - 1)], [0, 1, 2]), "indptr"),
        "CSR: int64 indices": (
            Graph(torch.tensor(ends), torch.tensor([0, 1, 2]), NODES),
            "indices",
        ),
        "CSR: int32 indptr": (
            Graph(torch.tensor(ends).int(), torch.tensor([0, 1, 2]).int(), NODES),
            "indptr",
        ),
        "matrix: column = N": (sparse(ends, [0, 1, NODES], [1.0] * 3), f"{NODES}"),
        "matrix: column below 0": (sparse(ends, [0, -1, 2], [1.0] * 3), "-1"),
        "matrix: falls": (sparse([0, 3, 2, *[3] * (NODES - 2)], [0, 1, 2], [1.0] * 3), "row 1"),
        "matrix: NaN": (sparse(ends, [0, 1, 2], [1.0, torch.nan, 1.0]), "NaN"),
        "matrix: infinite": (sparse(ends, [0, 1, 2], [torch.inf, 1.0, 1.0]), "inf"),
        "dense matrix": (torch.eye(NODES), "[2, num_edges]"),
    }
    for value in (-1, -(2**31), -(2**40), -(2**63), NODES, NODES + 1, 2**31, 2**32, 2**63 - 1):
        for row in (0, 1):
            for at in (0, 11, edges.size(1) - 1):
                name = f"edge_index[{row}, {at}] = {value}"
                listed[name] = changed(edges, row, at, value), f"[{row}, {at}] is {value}"
    small = changed(edges, 1, 5, NODES).int()
    listed["int32 edges, one outside"] = small, f"[1, 5] is {NODES}"
    return listed


def main() -> None:
    """Gives every model every graph."""
    started = time.perf_counter()
    count, wrong = 0, []
    listed: dict[str, tuple[Any, str]] = {}
    with threads(1):
        for model in ("gcn", "gin", "gat", "sage"):
            case = make_case(model)
            listed = bad_graphs(case.edge_index)
            for name, (graph, named) in listed.items():
                for kind, run in (("packed", case.packed.predict), ("prepared", case.prepared)):
                    count += 1
                    try:
                        run(case.x, graph)
                        wrong.append(f"{model} {kind}, {name}: no error")
                    except NodebitsError as error:
                        if named.lower() not in str(error).lower():
                            wrong.append(f"{model} {kind}, {name}: does not say {named}: {error}")
                    except Exception as error:
                        wrong.append(f"{model} {kind}, {name}: {type(error).__name__}: {error}")
            count += 1
            if not torch.equal(case.packed.predict(case.x, case.edge_index), case.simulated):
                wrong.append(f"{model}: another result after the errors")
    print("\n".join(wrong))
    record(
        Result(
            "R12",
            "Bad graphs are refused with the position",
            f"{len(listed)} bad graphs, 4 models, packed and prepared: {len(wrong)} of {count:,} "
            "without a typed error that names the place, and the models work afterwards",
            count,
            len(wrong),
            not wrong,
        ),
        started,
    )


if __name__ == "__main__":
    main()
