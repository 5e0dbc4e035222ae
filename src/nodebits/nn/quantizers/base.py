"""The quantizer at a site: codes in training, a frozen row quantizer for inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.affine import Codes
from nodebits.core.distributed import rows_of_all_ranks, take_from_first_rank, world_size
from nodebits.core.observer import check_finite
from nodebits.core.seen import SeenRows
from nodebits.engine.sites import FloatRows, RowQuantizer
from nodebits.engine.use import SampledCodes, Samples
from nodebits.graph.csr import Graph
from nodebits.graph.scope import current_scope
from nodebits.nn.quantizers.memo import SparseMemo
from nodebits.nn.quantizers.replay import Replay, recomputing
from nodebits.ops.autograd import Touch


class Quantizer(nn.Module):
    """Base of all activation quantizers.

    Attributes:
        bits: Bitwidth, None where the tensor stays in float.
        axis: -1 one scale, 1 one per column, 0 one per row.
        protectable: Whether rows that a method protects bypass rounding here (and are not
            observed).
        site_name: Path of the site in the model that was prepared.
        last_shape: Rows and columns of the last tensor that passed; None before the first.
        sampled: Codes of the tensors of calibration, or of the last one that passed outside of
            training; what conversion looks at to tell a range that says nothing.
    """

    bits: int | None
    axis: int = -1
    protectable: bool = False
    calibrating: bool = False
    site_name: str = ""
    last_shape: tuple[int, int] | None = None
    _calibrated: bool = False  # whether ``sampled`` is of calibration

    def __init__(self) -> None:
        super().__init__()
        self.seen: Any = SeenRows()
        self.sampled = Samples()
        self._found: list[Tensor] = []
        self._replay = Replay()

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Calls :meth:`forward`, a second time for gradients with the ranges of the first."""
        x = args[0] if args else None
        if not self.training or not isinstance(x, Tensor):
            return super().__call__(*args, **keywords)
        if recomputing():
            with self._replay.then(self, x):
                return super().__call__(*args, **keywords)
        codes = super().__call__(*args, **keywords)
        self._replay.keep(self, x)
        return codes

    def forward(self, x: Tensor) -> Codes:
        """Quantizes ``x`` float32 ``[N, C]``."""
        raise NotImplementedError

    def freeze(self) -> RowQuantizer:
        """Returns the inference form, which makes the same codes."""
        raise NotImplementedError

    def sparse(self, x: Tensor) -> Graph | None:
        """The codes of a constant ``x`` as sparse rows, where most are zero; None otherwise.

        Call it after :meth:`forward`. Edge weights are the codes, sources the columns.
        """
        return None

    def reset(self) -> None:
        """Forgets what was observed."""
        self.seen.clear()
        self.sampled.clear()

    def describe(self) -> str:
        """Granularity in words, for reports."""
        return {-1: "tensor", 0: "row", 1: "column"}[self.axis]

    @property
    def observing(self) -> bool:
        """Whether this forward may update ranges."""
        return (self.training or self.calibrating) and not recomputing()

    def row_top(self, x: Tensor) -> Tensor | None:
        """Largest code of every row of ``x``, ``[N, 1]``, where rows have widths of their own."""
        return None

    def show(self, x: Tensor, codes: Codes) -> None:
        """Keeps a sample of what passed, outside of training; none where several ranks train.

        Calibration counts before evaluation, whose graphs need not be those of the ranges.

        Args:
            x: float32 ``[N, C]``.
            codes: What :meth:`forward` made of it.
        """
        # A sample of one rank's data would make every rank write another file.
        if self.training or world_size() > 1:
            self.sampled.clear()
            self._calibrated = False
            return
        if codes.bits is None or (self._calibrated and not self.calibrating):
            return
        made = SampledCodes.of(
            x, codes.codes, codes.scale, codes.zero_point, codes.bits, self.row_top(x)
        )
        if not self._calibrated:
            self.sampled.clear()
        self.sampled.add(made, self.recount)
        self._calibrated = self.calibrating

    def recount(self, sample: SampledCodes) -> SampledCodes:
        """``sample`` with the codes of the present range, where that does not depend on a graph."""
        return sample

    # --- ranges: a quantizer that has one says how it is found; when, is decided here ---

    @property
    def known(self) -> bool:
        """Whether there is a range."""
        return True

    def estimate(self, x: Any) -> None:
        """Takes the range from ``x`` alone."""

    def follow(self, x: Any) -> None:
        """Takes a training batch into a range that is known."""

    def widen(self, x: Any) -> None:
        """Extends a trained range where ``x`` does not fit it."""
        self.follow(x)

    @property
    def described(self) -> str:
        """What the quantizer reads, for errors."""
        where = f" at site {self.site_name!r}" if self.site_name else ""
        return f"the tensor to be quantized{where}"

    @property
    def idle(self) -> list[Tensor]:
        """Parameters that no code depends on: those of a range that data gave up."""
        return []

    @property
    def settled(self) -> bool:
        """Whether a training batch can tell a known range nothing more."""
        return False

    def join(self, x: Any) -> Any:
        """What all ranks of a distributed training have, in place of ``x`` of this one."""
        if isinstance(x, list):
            return [rows_of_all_ranks(part) for part in x]
        return rows_of_all_ranks(x)

    def collect(self, x: Any) -> Any:
        """Adds to what calibration has seen; returns all of it."""
        return self.seen.add(x)

    @torch.no_grad()
    def observe(self, x: Tensor, parts: Any = None) -> Any:
        """Shows the quantizer a batch.

        The first batch of a training gives the range, and further ones until an optimizer has moved
        it; later ones are followed. While calibrating, the range is that of all calls together, in
        whatever order; a range that was trained is only widened. In a distributed training the
        batch is that of all ranks together.

        Args:
            x: float32 ``[N, C]``; an empty one changes nothing.
            parts: What :meth:`estimate` wants in place of ``x``.

        Returns:
            The rows observed, or their parts.

        Raises:
            NonFiniteError: If there is no range yet, or calibration sees NaN or infinity.
        """
        data = x if parts is None else parts
        if self._moved:
            self.seen.clear()
        open_range = bool(self.seen) and bool(self._found)
        settled = self.training and self.known and self.settled and not open_range
        shared = world_size() > 1 and not settled
        if shared:
            data = self.join(data)
        seen = data if isinstance(data, list) else [data]
        if not any(part.numel() for part in seen):
            return data
        if not (self.training and self.known):
            for part in seen:
                check_finite(part, self.described)
        if self.training and open_range:
            self.estimate(self.collect(data))
        elif self.training and self.known:
            self.seen.clear()
            self.follow(data)
        elif self.training:
            self.seen.clear()
            self.estimate(data)
            if self._learned:
                self.collect(data)
        elif self.known and not self.seen:
            self.widen(data)
        else:
            self.estimate(self.collect(data))
        if shared:
            take_from_first_rank((*self.parameters(), *self.buffers()))
        self._found = [p.detach().clone() for p in self._learned] if self.seen else []
        return data

    @property
    def _learned(self) -> list[Tensor]:
        """What training moves once data has given the range."""
        return [p for p in self.parameters() if p.requires_grad]

    @property
    def _moved(self) -> bool:
        """Whether a range that data gave was trained since."""
        pairs = zip(self._found, self._learned, strict=False)
        return not all(torch.equal(found, now) for found, now in pairs)

    def touch(self, codes: Codes) -> Codes:
        """``codes``, on which all parameters of this quantizer depend, if with gradient zero.

        DistributedDataParallel waits for a gradient of every parameter, also of one that only a
        penalty reaches, or that has served its time.
        """
        if not self.training or world_size() == 1:
            return codes
        parameters = [p for p in self.parameters() if p.requires_grad]
        return codes._replace(codes=Touch.apply(codes.codes, *parameters)) if parameters else codes

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # Ranges that come from elsewhere are known ones: what was seen here is not part of them.
        self.seen.clear()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def protected_rows(self, x: Tensor) -> Tensor | None:
        """Index of the rows of ``x`` that stay in float in this step, or None."""
        if not (self.protectable and self.training):
            return None
        mask = current_scope().protected
        if mask is None or mask.numel() != x.size(0):
            return None
        return mask.nonzero().view(-1)


def keep_float(codes: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, rows: Tensor) -> Tensor:
    """Replaces the codes of protected rows by ``x / scale + zero_point``, unrounded.

    ``(code - zero_point) * scale`` then gives x back, with gradient 1 for x and none for the scale.
    """
    return codes.index_copy(0, rows, x.index_select(0, rows) / scale + zero_point)


def drop_rows(x: Tensor, rows: Tensor | None) -> Tensor:
    """``x`` without the given rows: what observers may see. All of them if none would be left."""
    if rows is None or rows.numel() == 0:
        return x
    keep = torch.ones(x.size(0), dtype=torch.bool, device=x.device)
    keep[rows] = False
    return x[keep] if rows.numel() < x.size(0) else x


class FloatQuantizer(Quantizer):
    """Leaves the tensor in float: scale 1, zero point 0, no rounding."""

    bits = None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(1), persistent=False)
        self.register_buffer("zero", torch.zeros(1), persistent=False)
        self._sparse = SparseMemo()

    def forward(self, x: Tensor) -> Codes:
        """Returns ``x`` as it is."""
        return Codes(x, self.get_buffer("one"), self.get_buffer("zero"), None)

    def sparse(self, x: Tensor) -> Graph | None:
        return self._sparse.rows(x, owned=False)

    def freeze(self) -> RowQuantizer:
        return FloatRows()

    def describe(self) -> str:
        return "float"


@contextmanager
def calibration(model: nn.Module) -> Iterator[None]:
    """Lets every quantizer of ``model`` observe while it is open, whatever the training mode."""
    quantizers = [m for m in model.modules() if isinstance(m, Quantizer)]
    for quantizer in quantizers:
        quantizer.calibrating = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.calibrating = False
