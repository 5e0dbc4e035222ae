"""HGTConv (Hu et al. 2020): one softmax and one integer sum over the edges of all types."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

from nodebits.core.errors import ShapeError, indices_of
from nodebits.core.file_fields import SIZE, Integer, ListOf, Object, Options, Text
from nodebits.engine.pending import settle
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph, Part, joined_graph
from nodebits.nn.attention import check_scored, dot_attention
from nodebits.nn.attention_conv import QuantAttentionConv
from nodebits.nn.conv import one_matrix
from nodebits.nn.functional import check_product, linear, product_rows
from nodebits.nn.inputs import Features
from nodebits.nn.linear import check_weight
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import hooked
from nodebits.nn.stacked_rows import stacked
from nodebits.ops.autograd import dense_product

_KEY, _QUERY, _VALUE = range(3)


@register_layer(HGTConv)
class QuantHGTConv(QuantAttentionConv):
    """``out_i = sum_j a_ij Q(v_j) / sum_j a_ij`` over the edges of all types into a node.

    The map of a relation follows that of its source's type, so both are one: a matrix for the keys
    and one for the values of every type of edges, with the relation's prior in the former. They
    multiply the codes of the nodes, ``input_T`` of each type T. Rows of all types share the sites
    ``message_query``, ``message_key`` and ``message``, and go on as TransformerConv's do.
    """

    layer_type = "HGTConv"
    options: ClassVar[Options] = {
        "heads": Integer(1),
        "out_channels": SIZE,
        "node_types": ListOf(Text()),
        "edge_types": ListOf(ListOf(Text(), 3)),
        "widths": Object(SIZE),
    }
    derived_options: ClassVar = {
        "edge_types": lambda module: [tuple(kind) for kind in module.edge_types],
        "widths": lambda module: dict(module.kqv_lin.in_channels),
    }
    absent_sites = ("attention", "message_dst")
    concat = True
    dropout = 0.0
    message_query: Quantizer | RowQuantizer
    message_key: Quantizer | RowQuantizer
    kqv_lin: Any
    out_lin: Any
    k_rel: Any
    v_rel: Any
    p_rel: Any
    skip: Any
    node_types: list[str]
    edge_types: list[tuple[str, str, str]]
    widths: dict[str, int]

    @classmethod
    def unsupported(cls, module: Any) -> str | None:
        said = super().unsupported(module)
        if said is None and any(map(hooked, (module.kqv_lin, module.k_rel, module.v_rel))):
            return "someone looks at what its parts return"
        if said is None and module.kqv_lin.kwargs.get("bias", True) is not True:
            return "its maps of nodes have no bias"
        kinds = ["_".join(kind) for kind in module.edge_types]
        for names in (module.node_types, kinds):
            if said is None and len({re.sub(r"\W", "_", name) for name in names}) < len(names):
                return "two of its types have names that differ in signs alone"
        return said

    # --- sites ---

    def _site(self, *names: str) -> str:
        """A name of a submodule."""
        return re.sub(r"\W", "_", "_".join(names))

    def _products(self) -> dict[str, str]:
        """The type of nodes that each product reads, by the name of its weight."""
        found = {self._site("query", kind): kind for kind in self.node_types}
        for edge_type in self.edge_types:
            for part in ("key", "value"):
                found[self._site(part, *edge_type)] = edge_type[0]
        return found

    def place_quantizers(self, place: Placement, path: str) -> None:
        width = self.out_channels
        check_scored(width // self.heads, path)
        self.place_sites(place, path, width, width, edges=True)
        for name, columns in (("message", width), ("message_query", 0), ("message_key", 0)):
            info = SiteInfo(path, self.layer_type, "message", name, columns, pairs=True)
            setattr(self, name, place.activation(info))
        for kind in self.node_types:
            name = self._site("input", kind)
            columns = self.widths[kind]
            info = SiteInfo(path, self.layer_type, "input", name, columns)
            self._modules[name] = place.activation(info)
        for name, kind in self._products().items():
            columns = self.widths[kind]
            info = SiteInfo(path, self.layer_type, "weight", name, columns, width)
            quantizer = place.weight(info)
            self._modules[f"quantized_{name}"] = quantizer
            rows: Any = self._modules[self._site("input", kind)]
            check_product(rows, quantizer, columns, path)

        # Their weights are read, and what they are mapped to is not.
        for kind in self.node_types:
            inner, kept = self.kqv_lin.lins[kind], nn.Module()
            kept.weight, kept.bias = inner._parameters["weight"], inner.bias
            self.kqv_lin.lins[kind] = kept

    # --- weights ---

    def _maps(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Weights and biases of all products, float32 ``[F, K]`` and ``[F]``."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        by_kind: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for kind in self.node_types:
            inner = self.kqv_lin.lins[kind]
            weight, bias = inner._parameters["weight"], inner.bias
            both = zip(weight.chunk(3), bias.chunk(3), strict=True)
            by_kind[kind] = list(both)
            found[self._site("query", kind)] = by_kind[kind][_QUERY]
        size = self.out_channels // self.heads
        for place, edge_type in enumerate(self.edge_types):
            prior = self.p_rel["__".join(edge_type)].view(-1, 1, 1) / math.sqrt(size)
            own = slice(place, None, len(self.edge_types))
            of_key = self.k_rel.weight[own].transpose(1, 2) * prior
            of_value = self.v_rel.weight[own].transpose(1, 2)
            for part, relation, at in (("key", of_key, _KEY), ("value", of_value, _VALUE)):
                weight, bias = by_kind[edge_type[0]][at]
                made = dense_product(relation, weight.view(self.heads, size, -1))
                moved = dense_product(relation, bias.view(self.heads, size, 1))
                found[self._site(part, *edge_type)] = made.flatten(0, 1), moved.flatten()
        return found

    def _weights(self) -> dict[str, tuple[Any, Tensor]]:
        """Codes and biases of all products, in training or packed."""
        names = self._products()
        sites: dict[str, Any] = {name: self._modules[f"quantized_{name}"] for name in names}
        if all(isinstance(site, PackedWeight) for site in sites.values()):
            return {name: (site, self.get_buffer(f"bias_{name}")) for name, site in sites.items()}
        maps = self._maps()
        return {name: (site(maps[name][0]), maps[name][1]) for name, site in sites.items()}

    def freeze(self) -> None:
        super().freeze()
        names = self._products()
        if isinstance(self._modules[f"quantized_{next(iter(names))}"], PackedWeight):
            return
        for name, (weight, bias) in self._maps().items():
            quantizer = self._modules[f"quantized_{name}"]
            assert isinstance(quantizer, WeightQuantizer)
            self._modules[f"quantized_{name}"] = quantizer.freeze(weight.contiguous())
            self.register_buffer(f"bias_{name}", bias.detach().clone())
        self._drop_maps()

    def _drop_maps(self) -> None:
        """What the packed products are made of."""
        for kind in self.node_types:
            self.kqv_lin.lins[kind] = nn.Module()
        self.k_rel, self.v_rel, self.p_rel = nn.Module(), nn.Module(), nn.Module()

    # --- files ---

    def config(self) -> dict[str, Any]:
        found = super().config()
        return {**found, "edge_types": [list(kind) for kind in self.edge_types]}

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantHGTConv:
        layer = super().build(config)
        assert isinstance(layer, QuantHGTConv)
        layer.edge_types = [(one, how, other) for one, how, other in layer.edge_types]
        for name in layer._products():
            layer.register_buffer(f"bias_{name}", torch.zeros(layer.out_channels, device="cpu"))
        return layer

    def adopt(self, module: Any) -> None:
        super().adopt(module)
        self._drop_maps()

    def required_sites(self) -> set[str]:
        inputs = {self._site("input", kind) for kind in self.node_types}
        return super().required_sites() | inputs | {f"quantized_{n}" for n in self._products()}

    def check_loaded(self) -> None:
        for name, kind in self._products().items():
            shape = self.out_channels, self.widths[kind]
            check_weight(self._modules.get(f"quantized_{name}"), shape, name)

    # --- forward ---

    def forward(
        self, x_dict: Mapping[str, Any], edge_index_dict: Mapping[tuple[str, str, str], Any]
    ) -> dict[str, Tensor | None]:
        """Convolves.

        Args:
            x_dict: float32 ``[N, C]`` by type of nodes.
            edge_index_dict: Any adjacency form, by type of edges.

        Returns:
            float32 ``[N, out_channels]`` by type of nodes that edges lead to.

        Raises:
            ShapeError: On features of other shapes, or of types that the layer does not know.
        """
        features = self._features(x_dict)
        present = [kind for kind in edge_index_dict if kind in self.edge_types]
        if len(present) != len(edge_index_dict):
            other = next(kind for kind in edge_index_dict if kind not in self.edge_types)
            raise ShapeError(f"layer {self.described} got edges of the type {other}, without maps")
        for kind in present:
            if not {kind[0], kind[-1]} <= features.keys():
                raise ShapeError(
                    f"layer {self.described} got edges of the type {kind}, and nodes of the types "
                    f"{[*features]} alone"
                )
        counts = {kind: int(x.shape[0]) for kind, x in features.items()}
        graph = self._graph(edge_index_dict, counts)
        with self.layer_scope(graph):
            out = self._attended(features, present, graph)
        parts = zip(counts, out.split([*counts.values()]), strict=True)
        reached = {edge_type[-1] for edge_type in self.edge_types}
        return {
            kind: self._joined(kind, rows, x_dict[kind]) for kind, rows in parts if kind in reached
        }

    def _features(self, x_dict: Mapping[str, Any]) -> dict[str, Features]:
        found: dict[str, Features] = {}
        for kind, x in x_dict.items():
            if kind not in self.node_types:
                raise ShapeError(f"layer {self.described} got nodes of the type {kind!r}: no map")
            found[kind] = one_matrix(x, self)
            if found[kind].shape[1] != self.widths[kind]:
                raise ShapeError(
                    f"layer {self.described} got {kind!r} of shape {list(found[kind].shape)}, "
                    f"expected rows of {self.widths[kind]}"
                )
        return found

    def _graph(self, edges: Mapping[Any, Any], counts: Mapping[str, int]) -> Graph:
        """All edges: a source for every node and type of edges, a target for every node."""
        kinds = [*counts]
        parts = []
        for kind, adjacency in edges.items():
            with indices_of(partial("edges {!r} of ".format, kind)):
                graph = self.graph_of(adjacency, counts[kind[0]], counts[kind[-1]])
            parts.append(Part(graph.topology(), kinds.index(kind[-1])))
        if not parts:
            none = torch.zeros(2, 0, dtype=torch.int64, device="cpu")
            return self.graph_of(none, 0, sum(counts.values()))
        return joined_graph(parts, [*counts.values()])

    def _input(self, kind: str) -> Any:
        """The site of a type of nodes."""
        return self._modules[self._site("input", kind)]

    def _attended(self, features: Mapping[str, Features], present: list[Any], graph: Graph) -> Any:
        rows = {kind: product_rows(self._input(kind), x) for kind, x in features.items()}
        weights = self._weights()

        def mapped(name: str, kind: str) -> Tensor:
            weight, bias = weights[name]
            return linear(rows[kind], weight, bias, layer=self)

        queries = [mapped(self._site("query", kind), kind) for kind in features]
        query = stacked(self.message_query, queries)
        keys = [mapped(self._site("key", *edge_type), edge_type[0]) for edge_type in present]
        key = stacked(self.message_key, keys)
        values = [mapped(self._site("value", *edge_type), edge_type[0]) for edge_type in present]
        value = stacked(self.message, values).aligned()
        names = "message_key", "message_query"
        edges = dot_attention(self.attention, graph, (key, query), self.heads, 1.0, names)
        return settle(self.attend(value, graph, edges)[0])

    def _joined(self, kind: str, out: Tensor, x: Any) -> Tensor:
        """The last map of a type of nodes, and what is kept of its features."""
        made: Tensor = self.out_lin.lins[kind](nn.functional.gelu(out))
        made = settle(made)
        if made.size(-1) == x.size(-1):
            alpha = self.skip[kind].sigmoid()
            made = alpha * made + (1 - alpha) * settle(x)
        return made

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        """See :meth:`QuantLayer.input_sites`: none, features come by type."""
        return []

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"heads={self.heads}, out_channels={self.out_channels}"
