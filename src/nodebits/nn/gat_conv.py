"""GATConv (Velickovic et al. 2018) with integer scores and an integer-normalised softmax."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from nodebits.core.affine import Codes
from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import FLAG, SIZE, Integer, Number, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.products import scores
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.attention_conv import QuantAttentionConv, Seen
from nodebits.nn.conv import split_pair
from nodebits.nn.edge_loops import attention_edges, check_fill
from nodebits.nn.forms.cosine import edges_as_sources
from nodebits.nn.forms.softmax import softmax_codes
from nodebits.nn.functional import (
    AnyRows,
    check_product,
    linear,
    packed,
    quantize_rows,
    trained,
)
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import QuantLinear, check_weight, input_sites_of
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightCodes, WeightQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.scored_linear import scored_linear
from nodebits.nn.split_linear import plain_map
from nodebits.ops.autograd import dense_product


@register_layer(GATConv)
class QuantGATConv(QuantAttentionConv):
    """``out_i = sum_j a_ij Q(W x_j) / sum_j a_ij + b`` with unsigned integer ``a_ij``.

    * Scores are an integer product: the ``message`` codes times the quantized attention vectors
      (site ``att_weight``), with the message's scale folded into the vectors first.
    * Features of edges add a number per head: their map is folded with the vectors that read it.
    * Targets that are not the sources have ranges of their own: ``message_dst``, ``att_weight_dst``
      and, where both ends share a linear map, ``input_dst``.
    * ``a_ij = rne(exp(e_ij - max_j e_ij) * (2^b - 1))`` at the ``attention`` site; a row is
      divided by the integer sum of its codes, so its weights sum to one exactly and a hub's do not
      underflow.
    """

    layer_type = "GATConv"
    options: ClassVar[Options] = {
        "heads": Integer(1),
        "out_channels": SIZE,
        "concat": FLAG,
        "negative_slope": Number(),
        "dropout": Number(0.0, 1.0),
        "add_self_loops": FLAG,
        "bias": FLAG,
        "separate": FLAG,
        "residual": FLAG,
    }
    derived_options: ClassVar = {
        "separate": lambda module: module.lin is None,
        "residual": lambda module: module.res is not None,
    }
    own_values: ClassVar = {
        "bias": lambda layer: (layer.out_channels * (layer.heads if layer.concat else 1),)
    }
    packed_parameters: ClassVar[tuple[str, ...]] = ("att_src", "att_dst", "att_edge")
    vectors: ClassVar = ("att_src", "att_dst")  # of sources and of targets
    optional_sites: ClassVar[tuple[str, ...]] = ("attention", "message_dst", "input_dst")
    absent_sites: ClassVar[tuple[str, ...]] = ("message_dst", "att_weight_dst", "input_dst")
    att_weight: WeightQuantizer | PackedWeight
    att_weight_dst: WeightQuantizer | PackedWeight
    input_dst: Quantizer | RowQuantizer
    lin: Any
    lin_src: Any
    lin_dst: Any
    att_src: nn.Parameter | None
    att_dst: nn.Parameter | None
    att_edge: nn.Parameter | None
    edge_dim: int | None
    lin_edge: Any
    fill_value: Any
    in_channels: int
    negative_slope: float
    add_self_loops: bool
    separate: bool

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        edges = getattr(module, "edge_dim", None) is not None
        if edges and not plain_map(getattr(module, "lin_edge", None)):
            return "its map of edge features does not fold into its scores"
        return check_fill(module) or super().unsupported(module)

    def place_quantizers(self, place: Placement, path: str) -> None:
        width, heads = self.heads * self.out_channels, self.heads
        columns = width if self.concat else self.out_channels
        self.place_sites(place, path, width, columns, edges=True)
        self.att_weight = place.weight(
            SiteInfo(path, "GATConv", "weight", "att_weight", width, 2 * heads)
        )
        self.place_target(place, path, "message", width)
        if not self.separate:
            self.place_target(place, path, "input", self.in_channels)
        self.att_weight_dst = place.weight(
            SiteInfo(path, "GATConv", "weight", "att_weight_dst", width, heads, True)
        )
        check_product(self.message, self.att_weight, width, path)
        if self.lin_edge is not None:
            assert self.att_edge is not None
            where = f"{path}.lin_edge".lstrip(".")
            self.lin_edge = scored_linear(self.lin_edge, self.att_edge, heads, where, place)

    def _attention_matrix(self, scale: Tensor, end: str) -> Tensor:
        """The attention vectors of all heads as one weight ``[H or 2H, H*F]`` on codes.

        Row h holds the source's vector of head h in that head's columns, row H + h the target's;
        for the end ``"_dst"`` only the latter.
        """
        heads, width = self.heads, self.heads * self.out_channels
        source, target = (self.get_parameter(name) for name in self.vectors)
        vectors = target if end else torch.cat([source, target])  # [1 or 2, H, F]
        mask = torch.eye(heads, device=vectors.device)
        matrix = (vectors.unsqueeze(1) * mask.unsqueeze(0).unsqueeze(-1)).reshape(-1, width)
        return matrix * scale

    def _messages(self, site: Quantizer | RowQuantizer, x: Tensor) -> AnyRows:
        """Rows for the scores and for the sum."""
        return quantize_rows(site, x).aligned()

    def _target_scores(self, target: Any) -> Tensor:
        """Scores ``[num_dst, H]`` of targets that are not the sources."""
        lin = self.lin_dst if self.separate else self.lin
        if not hasattr(self, "message_dst"):  # a file of an older version: one range for both ends
            return self._scores(self._messages(self.message, lin(target)))[:, self.heads :]
        shared = not self.separate and isinstance(lin, QuantLinear)
        mapped = lin(target, self.input_dst) if shared else lin(target)
        return self._scores(self._messages(self.message_dst, mapped), "_dst")

    def _scores(self, rows: AnyRows, end: str = "") -> Tensor:
        """Scores ``[N, 2H]`` of every node as source and as target, ``[N, H]`` of targets."""
        quantizer = getattr(self, f"att_weight{end}")
        if isinstance(quantizer, PackedWeight):
            return scores(packed(rows), quantizer, self.get_buffer(f"att_offset{end}"))
        rows = trained(rows)
        if getattr(self, f"message{end}").calibrating:
            # The matrix holds the message's scale, which moves while its range is observed.
            quantizer.reset()
        weight: WeightCodes = quantizer(self._attention_matrix(rows.scale, end))
        one = torch.ones_like(rows.scale[:1])
        if rows.bits is None:
            return linear(Codes(rows.codes, one, one * 0, None), weight, None)
        if rows.zero_point.dim() == 2:  # a zero point per row
            acc = linear(
                Codes(rows.codes, one, one * 0, None), WeightCodes(weight.codes, one), None
            )
            return (acc - rows.zero_point * weight.codes.sum(1)) * weight.scale
        # A zero point per column is part of the contraction: sum_k z_k c_kj.
        offset = dense_product(weight.codes, rows.zero_point.expand(weight.codes.size(1)))
        plain = Codes(rows.codes, one, one * 0, None)
        acc = linear(plain, WeightCodes(weight.codes, one), None)
        return (acc - offset) * weight.scale

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed features, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form; weights of a sparse matrix are ignored, as PyG does.
            edge_attr: float32 ``[E, D]`` where the layer has ``edge_dim=D``; ignored without, as
                PyG does.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.
            return_attention_weights: Whether to return the attention too.

        Returns:
            float32 ``[num_dst, heads * out_channels]``, or ``[num_dst, out_channels]`` without
            ``concat``; with attention weights as the float layer returns them, in a pair
            ``(out, (edge_index, alpha))``, ``(out, (matrix, alpha))`` or ``(out, SparseTensor)``
            by the form of the adjacency. They are the codes over the sum of their target's.

        Raises:
            ShapeError: On features of other shapes or types.
            ConfigError: If attention is asked for on a reordered graph.
        """
        source, target, num_src, num_dst = split_pair(x, self)
        given = self.graph_of(edge_index, num_src, num_dst, size=size)
        graph = given.topology(distinct=self.add_self_loops)
        with self.layer_scope(graph):
            linear = getattr(self, "lin_edge", None)
            edge_attr = None if linear is None else edge_attr
            graph, table = attention_edges(
                self, graph, given.form, edge_attr, linear, getattr(self, "edge_dim", None)
            )
            expect_sites(x, self.input_sites())
            lin_src = self.lin_src if self.separate else self.lin
            rows = self._messages(self.message, lin_src(source))
            heads = self.heads
            both = self._scores(rows)
            score_src = both[:, :heads]
            if target is None:
                score_dst = score_src.new_zeros(graph.num_dst, heads)
            elif target is source and not self.separate:
                score_dst = both[:, heads:]
            else:
                score_dst = self._target_scores(target)
            scored, by_edge = graph, score_src
            if table is not None:
                of_edges, places = self.lin_edge(table.rows), table.places
                by_edge = of_edges if places is None else of_edges.index_select(0, places)
                by_edge = by_edge + score_src.index_select(0, graph.indices)
                by_edge = by_edge + score_dst.index_select(0, graph.rows)
                scored, score_dst = edges_as_sources(graph), torch.zeros_like(score_dst)
            edges = softmax_codes(
                self.attention,
                scored,
                by_edge.contiguous(),
                score_dst.contiguous(),
                self.negative_slope,
            )
            seen = Seen(edge_index, self.add_self_loops) if return_attention_weights else None
            return self.with_residual(rows, graph, edges, target, seen)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        linears = [self.lin_src, self.lin_dst] if self.separate else [self.lin]
        return input_sites_of(*linears, self.res)

    @torch.no_grad()
    def freeze(self) -> None:
        super().freeze()
        if all(getattr(self, name) is None for name in self.vectors):
            return
        if hasattr(self, "att_weight_dst"):
            if self.message_dst.unused:
                del self.att_weight_dst
            else:
                self._freeze_vectors("_dst")
        self._freeze_vectors("")
        for name in self.packed_parameters:
            setattr(self, name, None)

    def _freeze_vectors(self, end: str) -> None:
        site, quantizer = getattr(self, f"message{end}"), getattr(self, f"att_weight{end}")
        # Floats have neither; rows with a zero point each carry it along, see products.scores.
        device = self.get_parameter(self.vectors[0]).device
        scale = getattr(site, "scale", torch.ones(1, device=device))
        zero_point = getattr(site, "zero_point", torch.zeros(1, device=device))
        packed = quantizer.freeze(self._attention_matrix(scale, end))
        setattr(self, f"att_weight{end}", packed)
        width = self.heads * self.out_channels
        self.register_buffer(f"att_offset{end}", packed.codes() @ zero_point.expand(width))

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantLayer:
        layer = super().build(config)
        layer.register_buffer("att_offset", torch.zeros(2 * config["heads"]))
        return layer

    def load_sites(self, config: dict[str, Any]) -> None:
        super().load_sites(config)
        if "att_weight_dst" in config:
            self.register_buffer("att_offset_dst", torch.zeros(self.heads))

    def check_loaded(self) -> None:
        shape = (2 * self.heads, self.heads * self.out_channels)
        check_weight(self.att_weight, shape, "attention weight")
        if isinstance(getattr(self, "att_weight_dst", None), PackedWeight):
            shape = (self.heads, shape[1])
            check_weight(self.att_weight_dst, shape, "attention weight of targets")
        elif hasattr(self, "message_dst") and not self.message_dst.unused:
            raise FileFormatError("it has a site 'message_dst' and no site 'att_weight_dst'")
