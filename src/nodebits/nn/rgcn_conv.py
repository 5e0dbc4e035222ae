"""RGCNConv (Schlichtkrull et al. 2018): one integer sum and one integer product per relation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import FastRGCNConv, RGCNConv

from nodebits.core.errors import NodeIndexError, ShapeError
from nodebits.core.file_fields import FLAG, SIZE, Choice, Options
from nodebits.core.recorded import unrecorded
from nodebits.engine.pending import expect_sites, settle
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph
from nodebits.nn.conv import QuantConv, check_width, split_pair
from nodebits.nn.functional import (
    AnyRows,
    aggregate,
    check_product,
    dequantize_rows,
    linear,
    product_rows,
    quantize_rows,
)
from nodebits.nn.linear import check_weight, requantize
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.reductions import extremum
from nodebits.nn.registry import register_layer
from nodebits.nn.relation_weights import AnyWeight, relation_matrices, table_rows, weight_part
from nodebits.nn.relations import by_relation


@register_layer(RGCNConv, FastRGCNConv)
class QuantRGCNConv(QuantConv):
    """``out_i = W_0 x_i + sum_r W_r mean_j Q(x_j)`` over the neighbours j of every relation r.

    Rows are packed once, at ``message``, and added per relation; the aggregates of all relations
    share the site ``input``. What ``root`` reads has the site ``input_root``. Weights are
    ``weight_0``, ``weight_1`` and so on, combined from a basis before they become codes.

    Without features, or with numbers of nodes in their place, the weights' codes are added
    themselves, as rows of a table.
    """

    layer_type = "RGCNConv"
    aggregations = ("add", "sum", "mean", "max", "min")
    options: ClassVar[Options] = {
        "aggr": Choice(aggregations),
        "width": SIZE,
        "width_root": SIZE,
        "out_channels": SIZE,
        "num_relations": SIZE,
        "blocks": SIZE,
        "root_weight": FLAG,
        "bias": FLAG,
        "by_number": FLAG,
    }
    derived_options: ClassVar = {
        "width": lambda module: module.in_channels_l,
        "width_root": lambda m: m.in_channels_l if m.root is None else m.root.size(0),
        "blocks": lambda module: module.num_blocks or 1,
        "root_weight": lambda module: module.root is not None,
    }
    own_values: ClassVar = {"bias": lambda layer: (layer.out_channels,)}
    packed_parameters = ("weight", "comp", "root")
    absent_sites = ("attention", "message_dst", "quantized_root")
    aggr: str
    width: int
    width_root: int
    out_channels: int
    num_relations: int
    blocks: int
    root_weight: bool
    input: Quantizer | RowQuantizer
    input_root: Quantizer | RowQuantizer
    quantized_root: WeightQuantizer | PackedWeight
    weight: nn.Parameter | None
    root: nn.Parameter | None
    bias: nn.Parameter | None
    # Whether nodes came by number when ranges were taken.
    by_number: bool | None = None

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.width, self.out_channels)
        block = self.width // self.blocks

        def site(kind: str, name: str, columns: int) -> SiteInfo:
            channels = self.out_channels if kind == "weight" else 0
            return SiteInfo(path, self.layer_type, kind, name, columns, channels)

        self.input = place.activation(site("input", "input", block))
        for relation in range(self.num_relations):
            quantizer = place.weight(site("weight", f"weight_{relation}", block))
            self._modules[f"quantized_weight_{relation}"] = quantizer
            check_product(self.input, quantizer, block, path)
        if self.root_weight:
            self.input_root = place.activation(site("input", "input_root", self.width_root))
            self.quantized_root = place.weight(site("weight", "root", self.width_root))
            check_product(self.input_root, self.quantized_root, self.width_root, path)

    def forward(self, x: Any, edge_index: Any, edge_type: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed rows, int64 ``[N]`` numbers of nodes, None for all nodes
                in order, or a pair of these.
            edge_index: Any adjacency form.
            edge_type: int64 ``[E]``, the relation of every edge; None where the values of a
                ``SparseTensor`` say it.

        Returns:
            float32 ``[num_dst, out_channels]``.

        Raises:
            GraphError: If there are no relations, or not one for every edge.
            ShapeError: On features of other shapes, or on numbers of nodes where ranges were taken
                on features, or the other way round.
        """
        first = x[0] if isinstance(x, tuple | list) and len(x) == 2 else x
        numbers = first is None or (isinstance(first, Tensor) and not first.is_floating_point())
        self._note_kind(numbers)
        if numbers:
            return self._of_numbers(x, edge_index, edge_type)
        source, target, num_src, num_dst = split_pair(x, self)
        check_width(source, self.width, self)
        graph = self.graph_of(edge_index, num_src, num_dst)
        parts = by_relation(self, graph, edge_type, self.num_relations)
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            rows = quantize_rows(self.message, source)
            aggregates = (self._reduced(rows, part) for part in parts)
            out = self._mapped(aggregates)
            if self.root_weight:
                if target is None:
                    raise ShapeError(f"layer {self.described} got no rows of targets for its root")
                check_width(target, self.width_root, self)
                root = linear(
                    product_rows(self.input_root, target),
                    self._root_weight(),
                    self.bias,
                    layer=self,
                )
                return requantize(self.output, out + root)
            return requantize(self.output, out if self.bias is None else out + self.bias)

    def _note_kind(self, numbers: bool) -> None:
        sites = [site for site in self.children() if isinstance(site, Quantizer)]
        looks = self.training or any(site.calibrating for site in sites)
        if self.by_number is None or (sites and looks):
            idle = ("message", "input", "input_root") if numbers else ()
            self.__dict__.update(by_number=numbers, optional_sites=("attention", *idle))
        elif numbers != bool(self.by_number):
            kinds = ("features", "numbers of nodes")
            raise ShapeError(
                f"layer {self.described} got {kinds[numbers]}, expected {kinds[not numbers]}: its "
                "ranges were taken on them; calibrate it on what it will be given"
            )

    def _reduced(self, rows: AnyRows, graph: Graph) -> Tensor:
        """What the neighbours of one relation aggregate to."""
        if self.aggr in ("max", "min"):
            return extremum(rows, graph, self.aggr == "min", layer=self)
        mean = graph.inverse_degree if self.aggr == "mean" else None
        return aggregate(rows, graph, None, mean, layer=self)

    def _mapped(self, aggregates: Any) -> Tensor:
        """``sum_r W_r a_r``, by block where there are several."""
        weights = self._weights()
        width, out = self.width // self.blocks, self.out_channels // self.blocks
        made: list[Tensor | None] = [None] * self.blocks
        for aggregated, weight in zip(aggregates, weights, strict=True):
            whole = aggregated if self.blocks == 1 else settle(aggregated)
            for block in range(self.blocks):
                part, values = weight, whole
                if self.blocks > 1:
                    values = whole[:, block * width : (block + 1) * width].contiguous()
                    part = weight_part(weight, block * out, (block + 1) * out)
                y = linear(product_rows(self.input, values), part, None, layer=self)
                known = made[block]
                made[block] = y if known is None else known + y
        found = [part for part in made if part is not None]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    # --- nodes by number ---

    def _of_numbers(self, x: Any, edge_index: Any, edge_type: Tensor | None) -> Tensor:
        """Rows of the relations' tables, added; and the row of the root's."""
        if self.blocks > 1:
            raise ShapeError(
                f"layer {self.described} has blocks, which need features in place of numbers"
            )
        first, second = x if isinstance(x, tuple | list) else (x, x)
        source = self._numbers(first, self.width)
        target = source if second is first else self._numbers(second, self.width_root)
        num_src = self.width if source is None else source.numel()
        num_dst = self.width_root if target is None else target.numel()
        graph = self.graph_of(edge_index, num_src, num_dst)
        parts = by_relation(self, graph, edge_type, self.num_relations)
        out: Tensor | None = None
        with self.layer_scope(graph):
            for i, (part, weight) in enumerate(zip(parts, self._weights(), strict=True)):
                rows = table_rows(weight, self._site(i), source)
                y = settle(self._reduced(rows, part))
                out = y if out is None else out + y
            assert out is not None
            if self.root_weight:
                root = self._root_weight()
                out = out + dequantize_rows(table_rows(root, self.quantized_root, target))
            return requantize(self.output, out if self.bias is None else out + self.bias)

    def _numbers(self, x: Any, most: int) -> Tensor | None:
        """Numbers of nodes, checked; None for all in order."""
        if x is None:
            return None
        if not isinstance(x, Tensor) or x.dtype not in (torch.int64, torch.int32) or x.dim() != 1:
            got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ShapeError(
                f"layer {self.described} got {got}, expected features or int64 numbers of nodes"
            )
        numbers = x
        low, high = unrecorded(lambda: _extent(numbers))
        if low < 0 or high >= most:
            raise NodeIndexError(
                f"layer {self.described} got numbers of nodes from {low} to {high}: its table has "
                f"rows 0 to {most - 1}"
            )
        return x.long()

    # --- weights ---

    def _site(self, relation: int) -> Any:
        """Of a relation's weight."""
        return self._modules[f"quantized_weight_{relation}"]

    def _weights(self) -> list[AnyWeight]:
        """Codes of all relations, in training or packed."""
        sites = [self._site(i) for i in range(self.num_relations)]
        if all(isinstance(site, PackedWeight) for site in sites):
            return sites
        return [site(matrix) for site, matrix in zip(sites, relation_matrices(self), strict=True)]

    def _root_weight(self) -> AnyWeight:
        """Codes of the root's weight, ``[M, K]``."""
        site = self.quantized_root
        return site if isinstance(site, PackedWeight) else site(self._transposed_root())

    def _transposed_root(self) -> Tensor:
        root = self._parameters["root"]
        assert root is not None
        return root.t()

    def freeze(self) -> None:
        super().freeze()
        if self._parameters.get("weight") is None:
            return
        for i, matrix in enumerate(relation_matrices(self)):
            self._modules[f"quantized_weight_{i}"] = self._site(i).freeze(matrix.contiguous())
        site: Any = self._modules.get("quantized_root")
        if isinstance(site, WeightQuantizer):
            self.quantized_root = site.freeze(self._transposed_root().contiguous())
        for name in self.packed_parameters:
            self._parameters[name] = None

    def required_sites(self) -> set[str]:
        found = super().required_sites()
        weights = {f"quantized_weight_{i}" for i in range(self.num_relations)}
        root = {"input_root", "quantized_root"}
        return (found - root) | weights | (root if self.root_weight else set())

    def check_loaded(self) -> None:
        shape = self.out_channels, self.width // max(self.blocks, 1)
        for i in range(self.num_relations):
            check_weight(self._modules.get(f"quantized_weight_{i}"), shape, f"weight_{i}")
        if self.root_weight:
            check_weight(self.quantized_root, (self.out_channels, self.width_root), "root")

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.message, *([self.input_root] if self.root_weight else [])]

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.width}, {self.out_channels}, num_relations={self.num_relations}"


def _extent(numbers: Tensor) -> tuple[int, int]:
    if not numbers.numel():
        return 0, -1
    low, high = numbers.aminmax()
    return int(low), int(high)
