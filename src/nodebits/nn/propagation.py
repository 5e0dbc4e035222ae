"""What layers share that apply the normalised adjacency several times, on codes each time.

``A_hat = D^-1/2 (A + I) D^-1/2`` is an integer sum between two diagonal factors: the source's is
applied before the message site rounds, the target's after the sum (as in GCN). A layer of K steps
has K message sites, ``message_0`` .. ``message_{K-1}``: the range of a propagated signal shrinks
from step to step, so steps do not share one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nodebits import ops
from nodebits.core.affine import max_code
from nodebits.core.context import current, opened
from nodebits.core.errors import ConfigError
from nodebits.core.packing import row_bytes
from nodebits.engine.encoding import Encoding
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.recording import record
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.use import row_sample
from nodebits.graph import Graph
from nodebits.nn.conv import QuantConv, check_width, one_matrix, weighed_rows
from nodebits.nn.functional import aggregate, is_raw
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.ops import Edges, Rounds, Steps

Site = Quantizer | RowQuantizer


class Operator(NamedTuple):
    """``A_hat`` of one forward: an integer sum between two diagonal factors.

    Attributes:
        graph: Topology and weights, self loops included.
        factor: ``d^-1/2``, float32 ``[N]``, or None for the plain adjacency.
        layer: Whose it is.
    """

    graph: Graph
    factor: Tensor | None
    layer: QuantConv

    def __call__(
        self, site: Site, x: Tensor, waits: bool = False, times: float | None = None
    ) -> Tensor:
        """``A_hat Q(x)`` with the rounding of ``site``; float32 ``[N, C]``.

        Args:
            site: Of the rows.
            x: float32 ``[N, C]``.
            waits: Whether the result may wait for its reader (:mod:`nodebits.engine.pending`).
            times: A number that the result is multiplied with, in the factor of targets.
        """
        rows, edges = weighed_rows(self.layer, site, x, self.graph, self.factor)
        layer = self.layer if waits and not observed() else None
        target = self.factor
        if times is not None:
            target = x.new_full((x.size(0),), times) if target is None else target * times
        return aggregate(rows, self.graph, edges, target, layer=layer)


class Propagation(QuantConv):
    """Base: the operator's options, and a message site per step.

    Attributes:
        steps: K, at least 1.
        add_self_loops: Whether every node hears itself.
        normalize: Whether the operator is normalised (and loops are added).
    """

    derived_options: ClassVar = {"steps": lambda module: module.K}
    absent_sites = ("message_dst",)
    steps: int
    add_self_loops: bool = True
    normalize: bool = True

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        if getattr(module, "dropout", 0.0):
            return "it drops edges; use dropout=0 in it and drop features before it"
        return super().unsupported(module)

    def place_steps(self, place: Placement, path: str, num_cols: int) -> None:
        """Asks the method for the quantizers of all steps.

        Args:
            place: The method.
            path: Path of the layer.
            num_cols: Columns that are propagated; :data:`UNKNOWN_COLUMNS` where the layer does not
                know (ranges that are learned are then per tensor).

        Raises:
            ConfigError: If there is no step.
        """
        if self.steps < 1:
            raise ConfigError(f"{self.layer_type} has {self.steps} steps: it needs at least one")
        for step in range(self.steps):
            for name in self.step_sites():
                self._place(place, path, "message", f"{name}_{step}", num_cols)
        self._place(place, path, "output", "output", num_cols)
        self._place(place, path, "attention", "attention", 1)

    def step_sites(self) -> tuple[str, ...]:
        """Names of the message sites of one step."""
        return ("message",)

    def required_sites(self) -> set[str]:
        steps = {f"{name}_{step}" for step in range(self.steps) for name in self.step_sites()}
        return (super().required_sites() - {"message"}) | steps

    def _place(
        self,
        place: Placement,
        path: str,
        kind: str,
        name: str,
        num_cols: int,
        computed: bool = False,
    ) -> None:
        weighed = kind == "message"
        info = SiteInfo(
            path, self.layer_type, kind, name, num_cols, computed=computed, weighed=weighed
        )
        setattr(self, name, place.activation(info))

    def site(self, name: str, *at: int) -> Site:
        """The quantizer of a step, or of a part of one."""
        found: Site = getattr(self, "_".join([name, *map(str, at)]))
        return found

    def operator(self, graph: Graph) -> Operator:
        """``A_hat`` of ``graph``, its loops added as the options say."""
        factor = None
        if self.normalize:
            if self.add_self_loops:
                graph = graph.with_self_loops()
            factor = graph.deg_inv_sqrt
        return Operator(graph, factor, self)

    def run_packed(
        self,
        operator: Operator,
        x: Tensor,
        teleport: float,
        coefficients: list[float],
        laplacian: bool = False,
    ) -> Tensor | None:
        """All steps in one operator call; None where they must run one by one.

        They must while training, where a site is not a fixed range, with edge weights, and while
        someone collects the states.

        Args:
            operator: ``A_hat``.
            x: float32 ``[N, C]``.
            teleport: alpha.
            coefficients: Correction of every step, 0 for none.
            laplacian: Which correction.
        """
        watched = observed() or current().stepwise
        if operator.graph.edge_weight is not None or watched or x.dtype != torch.float32:
            return None
        sites: list[tuple[RowQuantizer, Encoding]] = []
        for step, coefficient in enumerate(coefficients):
            for name in ("message", "gap")[: 1 if coefficient == 0.0 else 2]:
                site = self.site(name, step)
                if not isinstance(site, RowQuantizer):
                    return None
                one = site.fixed(x.size(0))
                if one is None or one.layout is not None:
                    return None
                sites.append((site, one))
        cols = x.size(1)
        uses = current().uses
        if uses is not None and sites:  # of what the steps make only the first rows are at hand
            some = row_sample(x.size(0))
            factor = None if operator.factor is None else operator.factor[some]
            uses(sites[0][0], x, sites[0][1].pack(x[some], factor))
        for i, (site, _) in enumerate(sites):
            operator.graph.check_accumulator(max_code(int(site.bits or 0)))
            record(site, x.size(0), cols, raw=i == 0 and is_raw(x))
        graph, found = operator.graph, [encoding for _, encoding in sites]
        bits = [encoding.bits for encoding in found]
        return ops.propagate(
            Edges(graph.indptr, graph.indices, blocks=graph.blocks(row_bytes(cols, max(bits)))),
            x,
            operator.factor,
            Rounds(
                _by_column([encoding.affine.scale for encoding in found], cols),
                _by_column([encoding.affine.zero_point for encoding in found], cols),
                _by_column([encoding.rounding for encoding in found], cols),
                bits,
            ),
            Steps(coefficients, laplacian, teleport),
        )

    def enter(
        self, x: Any, adjacency: Any, edge_weight: Tensor | None = None
    ) -> tuple[Tensor, Graph]:
        """The features of a forward in float32, and its graph.

        Raises:
            ConfigError: If ``x`` was packed ahead: these layers read it in other ways besides.
            ShapeError: If ``x`` is not a matrix of the width that the layer has ranges for.
        """
        if isinstance(x, PackedInput):
            raise ConfigError(
                f"{self.layer_type} also reads its input in float, or with factors of the graph: "
                "pack the input of the layer before it"
            )
        x = one_matrix(x, self)
        assert isinstance(x, Tensor)
        check_width(x, _columns(self.site("message", 0)), self)
        graph = self.graph_of(adjacency, x.shape[0], x.shape[0], edge_weight)
        return x, self.check_cached(graph)

    def input_sites(self) -> list[Site]:
        """See :meth:`QuantLayer.input_sites`: none, the input is also read in float."""
        return []

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"steps={self.steps}"


def _columns(site: Site) -> int:
    """Columns that a site has ranges for, 0 where it takes any number, or is looking for them."""
    if isinstance(site, Quantizer) and site.calibrating:
        return 0
    ranges = getattr(site, "scale", None)
    if ranges is None:
        ranges = getattr(getattr(site, "observer", None), "low", None)
    if getattr(site, "axis", -1) != 1 or not isinstance(ranges, Tensor):
        return 0
    return ranges.numel() if ranges.numel() > 1 else 0


def _by_column(values: list[Tensor], cols: int) -> Tensor:
    """``[S, C]`` of S vectors, ``[C]`` or ``[1]`` each."""
    if len({v.numel() for v in values}) > 1:
        values = [v.expand(cols) for v in values]
    return torch.stack(values).expand(-1, cols).contiguous()


@contextmanager
def observing_states() -> Iterator[list[Tensor]]:
    """Collects what this thread's propagating layers hold after every step while it is open."""
    states: list[Tensor] = []
    with opened(states=(*current().states, states)):
        yield states


def observed() -> bool:
    """Whether someone collects states, so that a fused path must not skip them."""
    return bool(current().states)


def show_state(x: Tensor) -> None:
    """Gives a state to those who collect them."""
    for states in current().states:
        states.append(x.detach())
