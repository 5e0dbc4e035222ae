"""Chains: what is known of a result before it is computed, and who gets it.

A chain is a stage and what was noted on its result: a batch norm, a ReLU. Features that nobody
looked at yet are the other thing that :mod:`nodebits.engine.pending` waits with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from nodebits.core.context import current, opened
from nodebits.core.observer import FEATURES, check_finite
from nodebits.engine.encoding import Encoding
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


class Use:
    """One result of a layer, and how often it was computed."""

    __slots__ = ("layer", "times")

    def __init__(self, layer: Producer) -> None:
        self.layer, self.times = layer, 0


class Reader(NamedTuple):
    """A site that packs a chain's result.

    Attributes:
        site: The site.
        row_factor: float32 ``[N]``, multiplied first, or None.
    """

    site: RowQuantizer
    row_factor: Tensor | None = None


class _Encoded(NamedTuple):
    """A reader whose ranges are known."""

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
    uses: tuple[Use, ...]
    affine: ColumnAffine | None = None
    relu: bool = False

    is_raw = False
    values = None

    @property
    def chain(self) -> Chain:
        """Itself."""
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result."""
        return self.stage.shape

    @property
    def device(self) -> torch.device:
        """Of the result."""
        return self.stage.device

    def wait_for(self, site: RowQuantizer) -> None:
        """A result is packed at once, or computed."""

    def noted(self, affine: ColumnAffine) -> Chain | None:
        """With a batch norm; None where it holds one, or a ReLU that comes after it."""
        if self.relu or self.affine is not None or affine.scale.dtype != torch.float32:
            return None
        return replace(self, affine=affine)

    def rectified(self) -> Chain:
        """With a ReLU."""
        return replace(self, relu=True)

    def joined(self, other: Chain | Unread) -> Chain | None:
        """With another added to it; None where one call does not do that."""
        found = other.chain
        if found is None or not (self._plain and found._plain):
            return None
        one, more = (found, self) if found.stage.terms > 1 else (self, found)
        stage = joined(one.stage, more.stage)
        return None if stage is None else Chain(stage, (*one.uses, *more.uses))

    @property
    def _plain(self) -> bool:
        return not self.relu and self.affine is None

    def pack(self, readers: Sequence[Reader], sparse: bool) -> list[Rows] | str:
        """Packed rows of every reader in one pass; a word why where that needs the float matrix.

        Args:
            readers: Who reads the result, the one that asks first.
            sparse: Not used: no result is sparse.
        """
        rows, encoded = self.shape[0], []
        for site, row_factor in readers:
            encoding = site.fixed(rows)
            if encoding is None:
                what = "is left in float" if site.bits is None else "takes its scales from the rows"
                return f"site {site.site_name} {what}"
            encoded.append(_Encoded(site, encoding, row_factor))
        return self._run(encoded)

    def _run(self, sites: Sequence[_Encoded]) -> list[Rows]:
        """Packed rows of every site, in one pass."""
        self._log(tuple([reader.site.site_name for reader in sites]), "")
        packed = self._call(sites)
        cols = self.shape[1]
        return [r.encoding.rows(p, cols) for r, p in zip(sites, packed, strict=True)]

    def floats(self, reason: str) -> Tensor:
        """The float matrix."""
        self._log((), reason)
        return self._call(())[0]

    def _call(self, sites: Sequence[_Encoded]) -> list[Tensor]:
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
            names = tuple([use.layer.layer_name for use in self.uses])
            activation = "relu" if self.relu else ""
            norm = "" if self.affine is None else self.affine.name
            chains.append(ChainRecord(names, activation, readers, *self.shape, reason, norm))


@dataclass(frozen=True, eq=False)
class Unread:
    """A feature matrix that was not looked at yet: the other source of pending rows."""

    values: Tensor
    is_raw = True
    chain = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        return tuple(self.values.shape)

    @property
    def device(self) -> torch.device:
        """Of the matrix."""
        return self.values.device

    def wait_for(self, site: RowQuantizer) -> Rows | None:
        """Rows that a product packs as it goes; None where others are better."""
        return site.wait_features(self.values)

    def noted(self, affine: ColumnAffine) -> None:
        """Features are read as they are."""

    def rectified(self) -> None:
        """Features are read as they are."""

    def joined(self, other: Chain | Unread) -> None:
        """Features are read as they are."""

    def pack(self, readers: Sequence[Reader], sparse: bool) -> list[Rows] | str:
        """See :meth:`Chain.pack`: those of the first; the features are checked on the way."""
        site, row_factor = readers[0]
        if row_factor is not None:
            return f"site {site.site_name}"
        return [site.pack_features(self.values, sparse)]

    def floats(self, reason: str) -> Tensor:
        """The matrix.

        Raises:
            NonFiniteError: If it has NaN or infinity.
        """
        check_finite(self.values, FEATURES)
        return self.values
