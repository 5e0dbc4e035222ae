"""A case from its float module to its file and back: what became of it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import to_torch_csr_tensor

import nodebits
from grids import stand_ins
from grids.case import Case, E, tensors
from nodebits.core.errors import UnsupportedLayerWarning
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import QuantLinear
from nodebits.nn.propagate import tiles
from nodebits.runtime.sites import runs_of

# By norms, at 8 bits and not trained; of prepared and packed, that is codes at a boundary.
LIMIT, ROUNDING = 0.05, 2e-3
# Edges of a tile are so few that graphs of grids have many.
TILE_VALUES, LEAST_EDGES = 64, 16


class GridError(Exception):
    """What a case did not do."""


@dataclass(frozen=True)
class Outcome:
    """Of one case.

    Attributes:
        name: Of the case.
        variant: Of the case.
        passed: Whether all steps did what they should.
        runs: Kinds of what its layers run on, linear maps apart unless there is nothing else.
        error: Of the packed result at 8 bits, by norms, calibrated and not trained.
        rounding: Difference of prepared and packed results, by norms.
        sparse_error: As ``error`` with the adjacency as a CSR matrix; None where not tried.
        reason: What failed, or what stays in float and why.
    """

    name: str
    variant: str
    passed: bool
    runs: tuple[str, ...] = ()
    error: float | None = None
    rounding: float | None = None
    sparse_error: float | None = None
    reason: str = ""


class Whole(nn.Module):
    """A module and all floats that it returns, as one row each."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **keywords: Any) -> tuple[Tensor, ...]:
        return tuple(floats(self.inner(*args, **keywords)))


def floats(value: Any) -> Iterator[Tensor]:
    """All float tensors in a result."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.layout == torch.strided:
            yield value
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from floats(value[key])
    elif isinstance(value, tuple | list):
        for part in value:
            yield from floats(part)


@contextmanager
def small_tiles() -> Iterator[None]:
    """Makes tiles of a few targets."""
    before = tiles.TILE_VALUES, tiles._LEAST_EDGES
    tiles.TILE_VALUES, tiles._LEAST_EDGES = TILE_VALUES, LEAST_EDGES
    try:
        yield
    finally:
        tiles.TILE_VALUES, tiles._LEAST_EDGES = before


def outcome_of(case: Case) -> Outcome:
    """Runs a case; a failure is an outcome."""
    stand_ins.install()
    try:
        with small_tiles(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = _pass(case)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Outcome(case.name, case.variant, False, reason=text)
    said = [str(w.message) for w in caught if w.category is UnsupportedLayerWarning]
    return Outcome(case.name, case.variant, True, *found, reason="; ".join(dict.fromkeys(said)))


def _pass(case: Case) -> tuple[tuple[str, ...], float, float, float | None]:
    known = tensors()
    args, keywords = case.arguments(known)
    torch.manual_seed(1)
    model = _made(case, args, keywords)
    with torch.no_grad():
        torch.manual_seed(2)
        expected = model(*args, **keywords)
        prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
        nodebits.calibrate(prepared, [args], **keywords)
        torch.manual_seed(2)
        simulated = prepared.eval()(*args, **keywords)
        packed = nodebits.convert(prepared, leave_unseen="float")
    torch.manual_seed(2)
    found = packed.predict(*args, **keywords)
    error, rounding = difference(found, expected), difference(found, simulated)
    if error > LIMIT:
        raise GridError(f"the packed result differs by {error:.3g} from the float one")
    if rounding > ROUNDING:
        raise GridError(f"prepared and packed results differ by {rounding:.3g}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        packed.save(path)
        loaded = nodebits.load(path, model=_made(case, args, keywords))
    torch.manual_seed(2)
    again = loaded.predict(*args, **keywords)
    if not all(torch.equal(*map(_bits, pair)) for pair in zip(found, again, strict=True)):
        raise GridError(f"the loaded model differs by {difference(again, found):.3g}")
    return _runs(packed.module), error, rounding, _sparse(case, known, model, loaded)


def _made(case: Case, args: Any, keywords: Any) -> nn.Module:
    """The float module, with all its weights."""
    model = Whole(case.make()).eval()
    if any(is_lazy(p) for p in model.parameters()):
        with torch.no_grad():
            model(*args, **keywords)
    for module in model.modules():
        if isinstance(module, MessagePassing) and hasattr(module, "_cached_edge_index"):
            module.reset_parameters()
    return model


def difference(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Largest difference of two results by norms.

    Raises:
        GridError: If they have other shapes, or hold what is not finite.
    """
    largest = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            raise GridError(f"a result is {list(one.shape)}, not {list(other.shape)}")
        if not torch.equal(one.isfinite(), other.isfinite()):
            raise GridError("a result holds NaN or infinity at other places")
        gap = (one - other).nan_to_num(0.0, 0.0, 0.0).norm()
        scale = other.nan_to_num(0.0, 0.0, 0.0).norm().clamp_min(1e-12)
        largest = max(largest, float(gap / scale))
    return largest


def _bits(x: Tensor) -> Tensor:
    """NaN is equal to itself here: some float layers give it for targets without edges."""
    return x.contiguous().view(torch.int32)


def _runs(module: nn.Module) -> tuple[str, ...]:
    layers = [m for m in module.modules() if isinstance(m, QuantLayer)]
    # Linears that no data pass stay in float; messages do not.
    kinds = {runs_of(m) for m in layers if not isinstance(m, QuantLinear)}
    kinds = kinds or {runs_of(m) for m in layers}
    if any(
        isinstance(m, MessagePassing) and not isinstance(m, QuantLayer) for m in module.modules()
    ):
        kinds.add("float")
    return tuple(sorted(kinds))


def _sparse(case: Case, known: dict[str, Any], model: nn.Module, loaded: Any) -> float | None:
    """The error with a CSR matrix in place of edges; None where the float layer takes none."""
    words = case.given.split()
    given = [word for word in words if word in ("edges", "pair_edges", "batch_edges")]
    if not case.sparse or not given:
        return None
    edges, values = known[given[0]], None
    for name in ("weight", "signed"):
        if any(word.rpartition("=")[2] == name for word in words):
            values = known[name]
            words = ["none" if word == name else word for word in words]
            words = [word for word in words if word.rpartition("=")[2] != name]
    # Entries that stand twice would be summed.
    unique, first = _first_of_each(edges)
    size = known["size"] if given[0] == "pair_edges" else known["square"]
    cut = {
        k: v[first] if isinstance(v, Tensor) and v.dim() and v.size(0) == E else v
        for k, v in known.items()
    }
    matrix = to_torch_csr_tensor(
        unique.flip(0), None if values is None else values[first], size[::-1]
    )
    by_matrix = Case(*case[:3], " ".join(words)).arguments({**cut, given[0]: matrix})
    fresh = Whole(case.make()).eval()
    try:
        with torch.no_grad():
            torch.manual_seed(2)
            fresh(*by_matrix[0], **by_matrix[1])
            fresh.load_state_dict(model.state_dict())
            torch.manual_seed(2)
            expected = fresh(*by_matrix[0], **by_matrix[1])
    except Exception:
        return None  # PyG's own layer takes no such matrix here
    torch.manual_seed(2)
    found = loaded.predict(*by_matrix[0], **by_matrix[1])
    error = difference(found, expected)
    if error > LIMIT:
        raise GridError(f"with a CSR matrix the packed result differs by {error:.3g}")
    return error


def _first_of_each(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Edges once each, by target and source, and where they first stand."""
    key = edges[1] * (int(edges.max()) + 1) + edges[0]
    unique, inverse = key.unique(return_inverse=True)
    first = torch.full_like(unique, len(key))
    first.scatter_reduce_(0, inverse, torch.arange(len(key)), "amin")
    return edges[:, first], first
