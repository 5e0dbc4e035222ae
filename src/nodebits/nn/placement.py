"""Where a quantizer is wanted, and what a method answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from nodebits.graph.csr import Graph
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer

# A range that is observed may then be one per column; what is learned needs the number at once.
UNKNOWN_COLUMNS = -1


@dataclass(frozen=True)
class SiteInfo:
    """Where a quantizer is wanted.

    Attributes:
        layer: Path of the layer in the model, such as ``convs.0.lin``.
        layer_type: Class name of the float layer.
        kind: ``input``, ``weight``, ``message``, ``attention`` or ``output``.
        name: Name of the site in its layer; the kind, but for GAT's ``att_weight`` and for sites
            of targets that are not the sources, which end in ``_dst``.
        num_cols: Columns of the tensor (for weights: K, its inputs); 0 where one scale serves all,
            :data:`UNKNOWN_COLUMNS` where their number is not known before data passes.
        num_channels: For weights: output channels, M.
        optional: Whether only some calls reach it (targets other than the sources). It then gets
            a range that is observed: nothing to learn, and none where it was never reached.
        plain: Whether rows exist in float in any case, or are decoded before they meet others: a
            scale per row then costs nothing.
        or_tiled: Whether every row may have a scale, for which the layer then runs on tiles of
            decoded rows.
        pairs: Whether codes meet those of other rows at an edge: all rows then have one width and
            scale, or one per column where their number is not 0.
        computed: Whether rows exist in float in any case, where no range is learned for them.
        weighed: Whether scales of rows may be part of the weights of edges, where there are such
            and no range is learned.
        after_sum: Whether rows are what a sum over neighbours hands to a linear map.
        head: Whether it is of a linear map behind the last convolution.
    """

    layer: str
    layer_type: str
    kind: str
    name: str
    num_cols: int
    num_channels: int = 0
    optional: bool = False
    plain: bool = False
    or_tiled: bool = False
    pairs: bool = False
    computed: bool = False
    weighed: bool = False
    after_sum: bool = False
    head: bool = False

    @property
    def path(self) -> str:
        """``layer.name``, what overrides match."""
        return f"{self.layer}.{self.name}" if self.layer else self.name


class Placement(Protocol):
    """A method's answer to: which quantizer sits here?"""

    def activation(self, site: SiteInfo) -> Quantizer:
        """Quantizer for rows."""
        ...

    def weight(self, site: SiteInfo) -> WeightQuantizer:
        """Quantizer for weights."""
        ...


class Protection(Protocol):
    """Draws the rows of a layer that stay in float in this training step."""

    def draw(self, graph: Graph, batch: Tensor | None) -> Tensor | None:
        """Returns bool ``[num_src]``, or None for no protection."""
        ...
