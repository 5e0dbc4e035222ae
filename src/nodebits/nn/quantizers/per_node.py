"""What quantizers share whose rows are the nodes of one graph, each with parameters of its own."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.core.distributed import largest_of_ranks
from nodebits.core.errors import GraphMismatchError, NotCalibratedError
from nodebits.engine.sites import RowQuantizer
from nodebits.graph.scope import current_scope
from nodebits.nn.quantizers.base import Quantizer


class PerNode(Quantizer):
    """Base: sign, the graph that the nodes are of, and what is said of any other.

    Args:
        fallback: Whether other graphs than that of training are served by nearest pairs.
        sized: Names of tensors whose sizes are known from the first batch on only.
    """

    axis = 0
    bits = 8  # the largest possible; what int32 bounds are checked with
    signed: Tensor
    fingerprint: Tensor

    def __init__(self, fallback: bool, sized: tuple[str, ...]) -> None:
        super().__init__()
        self.fallback, self._sized = fallback, sized
        self.register_buffer("signed", torch.zeros((), dtype=torch.bool))
        self.register_buffer("fingerprint", torch.full((), -1, dtype=torch.int64))

    @property
    def num_rows(self) -> int:
        """Rows with parameters; 0 before the first batch."""
        raise NotImplementedError

    @property
    def known(self) -> bool:
        return self.num_rows > 0

    def join(self, x: Tensor) -> Tensor:
        """See :meth:`Quantizer.join`: values of the same nodes."""
        return largest_of_ranks(x)

    def collect(self, x: Tensor) -> Tensor:
        """See :meth:`Quantizer.collect`: further calls are further values of the same nodes."""
        return self.seen.add(x.t()).t()  # type: ignore[no-any-return]

    def _note_graph(self) -> None:
        graph = current_scope().graph
        if graph is not None:
            self.fingerprint.fill_(graph.fingerprint)

    def _refuse_unseen(self) -> NoReturn:
        raise NotCalibratedError(
            "a quantizer with a width per row has seen no data: train the prepared model "
            "or call nodebits.calibrate(model, x, edge_index) first"
        )

    def _check_graph(self, x: Tensor) -> None:
        """Refuses rows of another graph where nothing may serve them."""
        if not self.fallback or self.training:
            raise GraphMismatchError(
                f"this model has a bitwidth for each of the {self.num_rows} nodes of the graph it "
                f"is trained on, and got {x.size(0)} rows: use that graph, or fallback=True for "
                "evaluation on others"
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name in self._sized:
            value = state_dict.get(prefix + name)
            if value is not None:
                own: Tensor = getattr(self, name)
                own.data = own.data.new_empty(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def codes_of(rows: RowQuantizer, x: Tensor) -> Codes:
    """What the packed model would compute for rows of another graph."""
    packed = rows.pack(x)
    affine = packed.affine
    row_scale = affine.row_scale
    scale = affine.scale if row_scale is None else row_scale
    return Codes(packed.float_codes(), scale, affine.offsets(packed.layout), 8)
