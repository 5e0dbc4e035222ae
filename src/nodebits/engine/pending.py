"""Pending rows: a packed layer's result is not computed before it is known who reads it.

Inside :func:`deferring` a layer returns :class:`PendingRows`, a tensor whose shape is known and
whose values are not there yet. Sums of linear maps, a batch norm, ReLU and evaluation dropout are
noted on it.
When the next layer's site packs it, one fused operator goes from packed rows to packed rows, and
neither the int32 sums nor the float matrix ever exist. Any other use computes the float matrix,
with the same bits, and goes on with a plain tensor. So chains form in any module, without a graph
of it.

A result that is read twice would be computed twice: its layer is told so (``eager``) and from then
on computes the float matrix at once.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nodebits.core.context import current, opened
from nodebits.core.observer import FEATURES, check_finite
from nodebits.engine.encoding import Encoding
from nodebits.engine.formats import Format
from nodebits.engine.formats.floats import PLAIN
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import RowQuantizer
from nodebits.engine.stage import Stage, joined
from nodebits.ops import Sink


class Producer(Protocol):
    """A layer whose results may wait."""

    layer_name: str
    eager: bool


@dataclass(frozen=True)
class ChainRecord:
    """How one result of a packed layer was passed on.

    Attributes:
        layers: Paths of the layers whose sum it is, as a rule one.
        activation: ``"relu"`` or ``""``.
        readers: Sites that got it as packed rows.
        num_rows: Rows.
        num_cols: Columns.
        float_reason: Why it existed as a float matrix; empty where it did not.
        norm: Path of the batch norm that was computed before the activation, or ``""``.
    """

    layers: tuple[str, ...]
    activation: str
    readers: tuple[str, ...]
    num_rows: int
    num_cols: int
    float_reason: str = ""
    norm: str = ""

    @property
    def float_bytes(self) -> int:
        """Bytes of the float matrix, 0 where there was none."""
        return 4 * self.num_rows * self.num_cols if self.float_reason else 0


@contextmanager
def deferring() -> Iterator[list[ChainRecord]]:
    """Lets frozen layers return pending rows while it is open; collects how they were passed on.

    What leaves the block must go through :func:`settle`.
    """
    chains: list[ChainRecord] = []
    with opened(chains=chains):
        yield chains


class _Use:
    """One result of a layer, and how often it was computed."""

    __slots__ = ("layer", "times")

    def __init__(self, layer: Producer) -> None:
        self.layer, self.times = layer, 0


class _Reader(NamedTuple):
    """A site that packs a chain's result."""

    site: RowQuantizer
    encoding: Encoding
    row_factor: Tensor | None


class ColumnAffine(NamedTuple):
    """``y * scale + shift``, rounded twice: a batch norm in evaluation."""

    scale: Tensor  # [C]
    shift: Tensor
    name: str  # path of the norm


@dataclass(frozen=True)
class Chain:
    """A stage and what was noted on its result, in order."""

    stage: Stage
    uses: tuple[_Use, ...]
    affine: ColumnAffine | None = None
    relu: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result."""
        return self.stage.shape

    def run(self, sites: Sequence[_Reader]) -> list[Rows]:
        """Packed rows of every site, in one pass."""
        self._log(tuple(reader.site.site_name for reader in sites), "")
        packed = self._call(sites)
        cols = self.shape[1]
        return [r.encoding.rows(p, cols) for r, p in zip(sites, packed, strict=True)]

    def floats(self, reason: str) -> Tensor:
        """The float matrix."""
        self._log((), reason)
        return self._call(())[0]

    def _call(self, sites: Sequence[_Reader]) -> list[Tensor]:
        for use in self.uses:
            use.times += 1
            if use.times > 1:
                use.layer.eager = True
        affine = (None, None) if self.affine is None else self.affine[:2]
        outputs = [reader.encoding.output(reader.row_factor) for reader in sites]
        return self.stage.run(Sink(self.relu, outputs, *affine))

    def _log(self, readers: tuple[str, ...], reason: str) -> None:
        chains = current().chains
        if chains is not None and self.uses:
            names = tuple(use.layer.layer_name for use in self.uses)
            activation = "relu" if self.relu else ""
            norm = "" if self.affine is None else self.affine.name
            chains.append(ChainRecord(names, activation, readers, *self.shape, reason, norm))


class PendingRows(Tensor):
    """A float32 matrix ``[N, C]`` whose values are computed by whoever reads it.

    Its source is a :class:`Chain`, or a feature matrix that was not looked at yet.
    """

    _source: Chain | Tensor
    _floats: Tensor | None
    _packed: dict[int, Rows]
    _expected: Sequence[RowQuantizer]
    _waiting: list[weakref.ref[Format]]

    @staticmethod
    def __new__(cls, source: Chain | Tensor) -> PendingRows:
        """Wraps a source."""
        device = source.stage.device if isinstance(source, Chain) else source.device
        self: PendingRows = Tensor._make_wrapper_subclass(
            cls, tuple(source.shape), dtype=torch.float32, device=device
        )
        self._source, self._floats, self._packed, self._expected = source, None, {}, ()
        self._waiting = []
        return self

    @property
    def is_raw(self) -> bool:
        """Whether these are features as the model was given them, not a layer's result."""
        return isinstance(self._source, Tensor)

    @property
    def known(self) -> Tensor | None:
        """The values, where they exist already; not to be written to."""
        return self._source if isinstance(self._source, Tensor) else self._floats

    def wait_for(self, site: RowQuantizer) -> Rows | None:
        """Raw features for a product that packs them as it goes; None where that is not possible.

        Until then they are watched: whoever gets their values, and might write to them, makes them
        be packed first.
        """
        waiting = site.wait_features(self._source) if isinstance(self._source, Tensor) else None
        if waiting is not None:
            self._waiting.append(weakref.ref(waiting.data))
        return waiting

    def disclose(self, reason: str) -> Tensor:
        """The values, for someone who may write to them."""
        self._packed = {}
        for reference in self._waiting:
            waiting = reference()
            if waiting is not None:
                waiting.settled(PLAIN)
        self._waiting = []
        return self.floats(reason)

    def expect(self, sites: Sequence[RowQuantizer]) -> None:
        """Announces the sites that will read these rows: they are then packed in one pass."""
        self._expected = sites

    def note_affine(self, affine: ColumnAffine) -> PendingRows | None:
        """``self * scale + shift`` as rows that wait too; None where a chain cannot hold it."""
        chain = self._source
        if self._floats is not None or not isinstance(chain, Chain):
            return None
        if chain.relu or chain.affine is not None or affine.scale.dtype != torch.float32:
            return None
        return PendingRows(replace(chain, affine=affine))

    def floats(self, reason: str) -> Tensor:
        """The float matrix, a plain tensor (raw features are checked first).

        Raises:
            NonFiniteError: If it is a feature matrix with NaN or infinity.
        """
        if self._floats is None:
            source = self._source
            if isinstance(source, Chain):
                self._floats = source.floats(reason)
            else:
                check_finite(source, FEATURES)
                self._floats = source
        return self._floats

    def pack(
        self, site: RowQuantizer, row_factor: Tensor | None = None, sparse: bool = False
    ) -> Rows:
        """What ``site.pack`` would return for the float matrix.

        Args:
            site: Who reads the rows.
            row_factor: float32 ``[N]``, multiplied first.
            sparse: Whether raw features may come as sparse rows.
        """
        if row_factor is None and id(site) in self._packed:
            return self._packed.pop(id(site))
        if self._floats is None and isinstance(self._source, Chain):
            sites = [site, *(other for other in self._expected if other is not site)]
            fixed = [other.fixed(self.size(0)) for other in sites]
            waits = next((s for s, f in zip(sites, fixed, strict=True) if f is None), None)
            if waits is None:
                readers = [
                    _Reader(s, f, row_factor)
                    for s, f in zip(sites, fixed, strict=True)
                    if f is not None
                ]
                if row_factor is not None:
                    return self._source.run(readers[:1])[0]
                packed = self._source.run(readers)
                # Each expected site comes once; what it took is its own to free.
                self._packed = {id(s): p for s, p in zip(sites[1:], packed[1:], strict=True)}
                self._expected = ()
                return packed[0]
            what = "is left in float" if waits.bits is None else "takes its scales from the rows"
            self.floats(f"site {waits.site_name} {what}")
        if self._floats is None and row_factor is None and isinstance(self._source, Tensor):
            rows = site.pack_features(self._source, sparse)
            self._floats = self._source  # checked now
            return rows
        values = self.floats(f"site {site.site_name}")
        return site.pack(values, row_factor)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        # A model may keep a result: what is copied or stored is its values.
        return copy.deepcopy(self.floats("deepcopy"), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.floats("pickle").__reduce_ex__(protocol)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Notes what a chain can hold; anything else gets the values."""
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        noted = _NOTED.get(func)
        if noted is not None:
            result = noted(*args, **kwargs)
            if result is not None:
                return result
        reason = getattr(func, "__name__", str(func)).strip("_")
        return func(*_plain(args, reason), **_plain(kwargs, reason))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """For callers that reach an operator without passing ``__torch_function__``."""
        reason = str(func)
        return func(*_plain(args, reason), **_plain(kwargs or {}, reason))


def _plain(value: Any, reason: str) -> Any:
    """``value`` with the values of all pending rows in it."""
    if isinstance(value, PendingRows):
        return value.disclose(reason)
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(part, reason) for part in value)
    if isinstance(value, dict):
        return {key: _plain(part, reason) for key, part in value.items()}
    return value


def settle(value: Any) -> Any:
    """The result of a model with plain tensors in place of pending rows.

    Looks into tuples, lists, dictionaries and the attributes of other objects: data classes, PyG's
    ``Data``, a user's own. All but tuples keep their identity.
    """
    return _settled(value, set())


# How deep results lie in objects within objects; a back reference to a data set is not followed on.
_DEEPEST = 8


def _settled(value: Any, above: set[int]) -> Any:
    if isinstance(value, PendingRows):
        return value.floats("the model's result")
    if isinstance(value, Tensor | nn.Module | type | str | int | float | None):
        return value
    if id(value) in above or len(above) == _DEEPEST:
        return value
    above = {*above, id(value)}
    if isinstance(value, tuple):
        parts = [_settled(part, above) for part in value]
        if all(new is old for new, old in zip(parts, value, strict=True)):
            return value
        make: Any = getattr(type(value), "_make", type(value))
        return make(parts)
    if isinstance(value, list):
        value[:] = [_settled(part, above) for part in value]
    elif isinstance(value, dict):
        for key, part in value.items():
            value[key] = _settled(part, above)
    else:
        slots = {name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())}
        for name in slots | set(getattr(value, "__dict__", ())):
            part = getattr(value, name, None)
            settled = _settled(part, above)
            if settled is not part:  # also in a frozen data class
                object.__setattr__(value, name, settled)
    return value


def _note_relu(x: Any, inplace: bool = False) -> PendingRows | None:
    source = x._source
    if x._floats is not None or not isinstance(source, Chain) or (inplace and x._packed):
        return None
    chain = replace(source, relu=True)
    if inplace:
        x._source = chain
        result: PendingRows = x
        return result
    return PendingRows(chain)


def _note_relu_inplace(x: Any) -> PendingRows | None:
    return _note_relu(x, True)


def _note_dropout(
    x: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> PendingRows | None:
    return None if training else x


def _note_sum(a: Any, b: Any, *, alpha: float = 1) -> PendingRows | None:
    """Two sums of dense products become one; a product and a neighbour sum do not."""
    for rows in (a, b):
        if not isinstance(rows, PendingRows) or rows._floats is not None or rows._packed:
            return None
    one, other = a._source, b._source
    if not (isinstance(one, Chain) and isinstance(other, Chain)) or alpha != 1:
        return None
    if any(chain.relu or chain.affine is not None for chain in (one, other)):
        return None
    if other.stage.terms > 1:
        one, other = other, one
    stage = joined(one.stage, other.stage)
    return None if stage is None else PendingRows(Chain(stage, (*one.uses, *other.uses)))


def _note_same(x: Any, *others: Any, **options: Any) -> PendingRows | None:
    return x if x._floats is None and not others and not options else None


_NOTED: dict[Callable[..., Any], Callable[..., PendingRows | None]] = {
    F.relu: _note_relu,
    torch.relu: _note_relu,
    Tensor.relu: _note_relu,
    F.relu_: _note_relu_inplace,
    torch.relu_: _note_relu_inplace,
    Tensor.relu_: _note_relu_inplace,
    F.dropout: _note_dropout,
    torch.add: _note_sum,
    Tensor.add: _note_sum,
    Tensor.__add__: _note_sum,
    Tensor.contiguous: _note_same,
    Tensor.detach: _note_same,
    Tensor.float: _note_same,
}

_METADATA = {
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.dtype.__get__,  # type: ignore[attr-defined]
    Tensor.device.__get__,
    Tensor.layout.__get__,  # type: ignore[attr-defined]
    Tensor.ndim.__get__,  # type: ignore[attr-defined]
    Tensor.requires_grad.__get__,  # type: ignore[attr-defined]
    Tensor.is_sparse.__get__,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__,  # type: ignore[attr-defined]
    Tensor.is_meta.__get__,  # type: ignore[attr-defined]
    Tensor.is_nested.__get__,  # type: ignore[attr-defined]
    Tensor.size,
    Tensor.dim,
    Tensor.numel,
    Tensor.is_floating_point,
    Tensor.__len__,
    Tensor.__hash__,
    torch.is_floating_point,
    torch.numel,
}


def deliver(layer: Producer | None, stage: Stage) -> Tensor:
    """The result of a frozen layer: pending where that may pay, the float matrix otherwise."""
    if layer is None or current().chains is None or torch.compiler.is_compiling():
        return Chain(stage, ()).floats("")
    chain = Chain(stage, (_Use(layer),))
    if layer.eager:
        return chain.floats("it is read more than once")
    return PendingRows(chain)


def expect_sites(x: Any, sites: Sequence[Any]) -> None:
    """Announces the sites that will read ``x``, where it waits."""
    if isinstance(x, PendingRows):
        x.expect(sites)
