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
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nodebits.core.context import current
from nodebits.engine.chain import Chain, ColumnAffine, Producer, Reader, Unread, Use
from nodebits.engine.formats import Format
from nodebits.engine.formats.floats import PLAIN
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import RowQuantizer
from nodebits.engine.stage import Stage


class PendingRows(Tensor):
    """A float32 matrix ``[N, C]`` whose values are computed by whoever reads it.

    Its source is a :class:`Chain`, or a feature matrix that was not looked at yet.
    """

    _source: Chain | Unread
    _floats: Tensor | None
    _packed: dict[int, tuple[Tensor | None, Rows]]  # by site, with the factor of their rows
    _expected: Sequence[Reader]
    _waiting: list[weakref.ref[Format]]

    @staticmethod
    def __new__(cls, source: Chain | Unread) -> PendingRows:
        """Wraps a source."""
        self: PendingRows = Tensor._make_wrapper_subclass(
            cls, source.shape, dtype=torch.float32, device=source.device
        )
        self._source, self._floats, self._packed, self._expected = source, None, {}, ()
        self._waiting = []
        return self

    @property
    def is_raw(self) -> bool:
        """Whether these are features as the model was given them, not a layer's result."""
        return self._source.is_raw

    @property
    def known(self) -> Tensor | None:
        """The values, where they exist already; not to be written to."""
        return self._floats if self._source.values is None else self._source.values

    def wait_for(self, site: RowQuantizer) -> Rows | None:
        """Raw features for a product that packs them as it goes; None where that is not possible.

        Until then they are watched: whoever gets their values, and might write to them, makes them
        be packed first.
        """
        waiting = self._source.wait_for(site)
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

    def expect(self, readers: Sequence[Reader]) -> None:
        """Announces who will read these rows: they are then packed in one pass."""
        self._expected = readers

    def note_affine(self, affine: ColumnAffine) -> PendingRows | None:
        """``self * scale + shift`` as rows that wait too; None where a chain cannot hold it."""
        chain = None if self._floats is not None else self._source.noted(affine)
        return None if chain is None else PendingRows(chain)

    def floats(self, reason: str) -> Tensor:
        """The float matrix, a plain tensor (raw features are checked first).

        Raises:
            NonFiniteError: If it is a feature matrix with NaN or infinity.
        """
        if self._floats is None:
            self._floats = self._source.floats(reason)
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
        if id(site) in self._packed and self._packed[id(site)][0] is row_factor:
            return self._packed.pop(id(site))[1]
        if self._floats is None:
            others = [one for one in self._expected if one.site is not site]
            packed = self._source.pack([Reader(site, row_factor), *others], sparse)
            if not isinstance(packed, str):
                if len(packed) > 1:
                    # Each expected site comes once; what it took is its own to free.
                    for one, rows in zip(others, packed[1:], strict=True):
                        self._packed[id(one.site)] = one.row_factor, rows
                    self._expected = ()
                self._floats = self._source.values  # features: checked now
                return packed[0]
            self.floats(packed)
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


def unread(x: Tensor) -> PendingRows:
    """A feature matrix ``[N, C]`` that is looked at by whoever reads it."""
    return PendingRows(Unread(x))


def waiting(value: Any) -> PendingRows | None:
    """``value`` where it is a result or a feature matrix that waits to be read."""
    return value if isinstance(value, PendingRows) else None


def _plain(value: Any, reason: str) -> Any:
    """``value`` with the values of all pending rows in it."""
    rows = waiting(value)
    if rows is not None:
        return rows.disclose(reason)
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(part, reason) for part in value)
    if isinstance(value, dict):
        return {key: _plain(part, reason) for key, part in value.items()}
    return value


def floats(x: Tensor, reason: str) -> Tensor:
    """``x`` as a plain tensor; ``reason`` says who reads rows that wait."""
    rows = waiting(x)
    return x if rows is None else rows.floats(reason)


def settle(value: Any) -> Any:
    """The result of a model with plain tensors in place of pending rows.

    Looks into tuples, lists, dictionaries and the attributes of other objects: data classes, PyG's
    ``Data``, a user's own. All but tuples keep their identity.
    """
    return _settled(value, set())


# How deep results lie in objects within objects; a back reference to a data set is not followed on.
_DEEPEST = 8


def _settled(value: Any, above: set[int]) -> Any:
    rows = waiting(value)
    if rows is not None:
        return rows.floats("the model's result")
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
    if x._floats is not None or (inplace and x._packed):
        return None
    chain = x._source.rectified()
    if chain is None or not inplace:
        return None if chain is None else PendingRows(chain)
    x._source = chain
    result: PendingRows = x
    return result


def _note_relu_inplace(x: Any) -> PendingRows | None:
    return _note_relu(x, True)


def _note_dropout(
    x: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> PendingRows | None:
    return None if training else x


def _note_sum(a: Any, b: Any, *, alpha: float = 1) -> PendingRows | None:
    """Two sums of dense products become one; a product and a neighbour sum do not.

    A bias is a shift of every column.
    """
    one, other = waiting(a), waiting(b)
    if alpha != 1:
        return None
    if one is not None and _is_bias(b, one):
        return one.note_affine(ColumnAffine(torch.ones_like(b), b, ""))
    if one is None or other is None:
        return None
    if any(rows._floats is not None or rows._packed for rows in (one, other)):
        return None
    chain = one._source.joined(other._source)
    return None if chain is None else PendingRows(chain)


def _is_bias(b: Any, rows: PendingRows) -> bool:
    if type(b) not in (Tensor, nn.Parameter) or b.dtype != torch.float32:
        return False
    return bool(b.shape == rows.shape[1:] and b.device == rows.device)


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
    chain = Chain(stage, (Use(layer),))
    if layer.eager:
        return chain.floats("it is read more than once")
    return PendingRows(chain)


def expect_sites(x: Any, sites: Sequence[Any], factors: Sequence[Tensor | None] = ()) -> None:
    """Announces the sites that will read ``x``, where it waits.

    Args:
        x: Features, of any kind.
        sites: The sites.
        factors: float32 ``[N]`` or None for each of them, multiplied first; none where left out.
    """
    rows = waiting(x)
    if rows is not None:
        each = factors or [None] * len(sites)
        rows.expect([Reader(site, factor) for site, factor in zip(sites, each, strict=True)])
