"""Peers that only a card has: cuSPARSE in halves, kernels that reduce segments, compiled models.

Halves are float16 and bfloat16. A peer whose library is not installed is a row with that reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.bench.speed.rows import Call, Candidate
from nodebits.graph import Graph

HALVES = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, *HALVES)
Ways = dict[str, Callable[[Tensor], Call]]


def in_types(
    what: str, dtypes: tuple[torch.dtype, ...], build: Callable[[torch.dtype], Call]
) -> list[Candidate]:
    """A candidate for each type of floats.

    Args:
        what: Its name, which the type follows.
        dtypes: Types.
        build: Makes the call of a type.
    """
    return [
        Candidate(
            f"{what} {str(dtype).removeprefix('torch.')}",
            "float32" if dtype == torch.float32 else "float",
            partial(build, dtype),
            8 * dtype.itemsize,
        )
        for dtype in dtypes
    ]


def sum_peers(graph: Graph, x: Tensor, weight: Tensor | None) -> list[Candidate]:
    """Neighbour sums by cuSPARSE in halves, and by kernels that reduce segments.

    Args:
        graph: Topology, on the device of ``x``.
        x: float32 ``[N, C]``.
        weight: float32 ``[E]``, or None. Kernels that reduce segments of rows take none.
    """

    def sparse(dtype: torch.dtype) -> Call:
        values = torch.ones(graph.num_edges, device=x.device) if weight is None else weight
        size = graph.num_dst, graph.num_src
        matrix = torch.sparse_csr_tensor(
            graph.indptr, graph.indices.long(), values.to(dtype), size, check_invariants=False
        )
        rows = x.to(dtype)
        return lambda: matrix @ rows

    found = in_types("torch.sparse CSR", HALVES, sparse)
    for name, way in segment_sums(graph).items() if weight is None else ():
        found += in_types(name, FLOATS, partial(_of_type, way, x))
    return found


def _of_type(way: Callable[[Tensor], Call], x: Tensor, dtype: torch.dtype) -> Call:
    return way(x.to(dtype))


def segment_sums(graph: Graph) -> Ways:
    """Kernels that reduce segments of gathered rows; those of torch and of three libraries.

    Returns:
        By name what makes a call of rows ``[N, C]``; its result is ``[N_dst, C]``.
    """
    indptr, columns = graph.indptr, graph.indices.long()

    def torch_segments(x: Tensor) -> Call:
        return lambda: torch.segment_reduce(x[columns], "sum", offsets=indptr, axis=0)

    def segments(module: str, x: Tensor) -> Call:
        kernel: Any = import_module(module).segment_csr
        return lambda: kernel(x[columns], indptr)

    def sparse_tensor(x: Tensor) -> Call:
        kind: Any = import_module("torch_sparse").SparseTensor
        matrix = kind(rowptr=indptr, col=columns, sparse_sizes=(graph.num_dst, graph.num_src))
        return lambda: matrix.matmul(x)

    return {
        "torch.segment_reduce": torch_segments,
        "torch_scatter.segment_csr": partial(segments, "torch_scatter"),
        "pyg_lib segment_csr": partial(segments, "pyg_lib.ops"),
        "torch_sparse.matmul": sparse_tensor,
    }


def model_peers(model: nn.Module, x: Tensor, *rest: Any, **more: Any) -> list[Candidate]:
    """PyG's model as it is and compiled, in each type of floats.

    Args:
        model: On the device of ``x``.
        x: float32 features ``[N, F]``.
        rest: Its other arguments, ``edge_index`` first.
        more: Likewise by name.
    """

    def build(compiled: bool, dtype: torch.dtype) -> Call:
        own: Any = copy.deepcopy(model).to(dtype)
        features = x.to(dtype)
        run = torch.compile(own) if compiled else own
        return lambda: run(features, *rest, **more)

    return [
        *in_types("PyG", FLOATS, partial(build, False)),
        *in_types("PyG compiled", FLOATS, partial(build, True)),
    ]
