"""What convolutions share: their inputs, their graph, and edge weights as codes."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nodebits.core.errors import GraphError, ShapeError, UnsupportedLayerError, indices_of
from nodebits.engine.edges import EdgeCodes
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph, as_graph
from nodebits.graph.loops import MATRIX, SPARSE_TENSOR
from nodebits.nn.forms import edges
from nodebits.nn.functional import AnyRows, quantize_rows
from nodebits.nn.inputs import Features, as_features
from nodebits.nn.layer import QuantLayer, lazy_reason
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.prompt import AggregationPrompt
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.ranged import RangeQuantizer
from nodebits.nn.translation import not_portable, refuse_translation


class QuantConv(QuantLayer):
    """Base of convolutions: a ``message`` site, often an ``attention`` and an ``output`` one."""

    message_dst: Quantizer | RowQuantizer
    attention: Quantizer | RowQuantizer
    output: Quantizer | RowQuantizer
    # Softmax numerators need no data, and edge weights may be absent.
    optional_sites: ClassVar[tuple[str, ...]] = ("attention",)
    absent_sites: ClassVar[tuple[str, ...]] = ("attention", "message_dst")
    # Whether messages are made by :func:`weighed_rows`.
    weighs_rows: ClassVar[bool] = False

    def required_sites(self) -> set[str]:
        """See :meth:`QuantLayer.required_sites`; ``message`` is no annotation."""
        return super().required_sites() | {"message"}

    @property
    def message(self) -> Quantizer | RowQuantizer:
        """The site of the rows entering the neighbour sum."""
        # A submodule is found last, and the float type has a method of this name.
        site = self._modules.get("message")
        if not isinstance(site, Quantizer | RowQuantizer):
            raise AttributeError(f"{self.layer_type} has no single message site")
        return site

    @message.setter
    def message(self, site: Quantizer | RowQuantizer) -> None:
        self._modules["message"] = site

    @property
    def runs(self) -> str:
        """What it runs on codes."""
        aggregation = getattr(self, "aggr", "sum")
        return f"integer {aggregation if aggregation in ('max', 'min') else 'sum'}"

    @property
    def explain(self) -> bool | None:
        """Whether an explainer masks the layer's messages: never."""
        return None

    @explain.setter
    def explain(self, explain: bool | None) -> None:
        if explain:
            raise _no_messages(self.layer_type, "an explainer's edge mask")

    def propagate(self, *args: Any, **keywords: Any) -> Tensor:
        """Refuses: there are no messages per edge.

        Raises:
            UnsupportedLayerError: Always.
        """
        raise _no_messages(self.layer_type, "propagate()")

    def jittable(self, *args: Any, **keywords: Any) -> QuantConv:
        """Refuses, as :meth:`__prepare_scriptable__` does.

        Raises:
            UnsupportedLayerError: Always.
        """
        raise not_portable("jittable()", self.layer_type)

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        lazy = lazy_reason(module)
        if lazy is not None:
            return lazy
        if getattr(module, "flow", "source_to_target") != "source_to_target":
            return "it has flow='target_to_source'; transpose the edges and use the default flow"
        if getattr(module, "aggr", "add") not in cls.aggregations:
            return (
                f"it aggregates with {module.aggr!r}; only {' and '.join(cls.aggregations)} are "
                "exact "
                "integer sums"
            )
        return None

    @classmethod
    def aggregated_channels(cls, module: Any) -> int | None:
        """Columns of the neighbour sums of a float layer, for a prompt; None for no prompt."""
        return None

    def prompted(self, rows: Tensor) -> Tensor:
        """Aggregated rows, with the prompt added where the layer has one.

        Args:
            rows: float32 ``[num_dst, C]``.
        """
        prompt = self._modules.get("prompt")
        if not isinstance(prompt, AggregationPrompt):
            return rows
        result: Tensor = prompt(rows)
        return result

    def over_stack(
        self,
        x: Any,
        adjacency: Any,
        edge_weight: Tensor | None = None,
        size: tuple[int, int] | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Several feature matrices on one graph, ``[*, N, C]``, as PyG's layers take them.

        They run as one graph of as many parts, so every matrix is treated as it would be alone.

        Args:
            x: float32 ``[*, N, C]`` or a pair of such, the second of which may be None.
            adjacency: Of one part.
            edge_weight: Likewise.
            size: Likewise.
            features: Rows of edges of one part, for layers that take them.

        Raises:
            ShapeError: If the two of a pair are not stacked alike.
        """
        source, target = x if isinstance(x, tuple | list) else (x, x)
        lead, num_src = source.shape[:-2], source.size(-2)
        num_dst = num_src if target is None else target.size(-2)
        if target is not None and target.shape[:-2] != lead:
            raise ShapeError(
                f"layer {self.described} got sources {list(source.shape)} and targets "
                f"{list(target.shape)}: both must be stacked alike"
            )
        graph = self.graph_of(adjacency, num_src, num_dst, edge_weight, size)
        parts = graph.repeated(math.prod(lead))
        more: tuple[Tensor, ...] = ()
        if features is not None:
            ordered = features if graph.perm is None else features[graph.perm]
            more = (ordered.repeat(math.prod(lead), *[1] * (features.dim() - 1)),)
        flat = source.reshape(-1, source.size(-1))
        ends = None if target is None else target.reshape(-1, target.size(-1))
        if target is source:
            out = self.forward(flat, parts, *more)
        elif target is None:
            out = self.forward((flat, None), parts, *more, size=(parts.num_src, parts.num_dst))
        else:
            out = self.forward((flat, ends), parts, *more)
        result: Tensor = out.reshape(*lead, graph.num_dst, out.size(-1))
        return result

    aggregations: tuple[str, ...] = ("add", "sum")
    # PyG's ``cached=True``: every forward is on one graph, whose number is kept (not in files).
    cached: bool = False
    _known_graph: tuple[int, int] | None = None

    def graph_of(
        self,
        adjacency: Any,
        num_src: int,
        num_dst: int,
        edge_weight: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Graph:
        """The graph of a forward, see :func:`nodebits.graph.as_graph`.

        Args:
            adjacency: Any form.
            num_src: Number of sources.
            num_dst: Number of targets.
            edge_weight: float ``[E]``, or None.
            size: PyG's ``(num_src, num_dst)``, which goes before the numbers.

        Raises:
            NodeIndexError: If an edge names a node that is not there; names the layer, whose path
                holds the relation in models of several.
        """
        refuse_translation("a quantized convolution")
        if size is not None:
            num_src, num_dst = size
        with indices_of(lambda: f"layer {self.described}: "):
            return as_graph(adjacency, num_src, num_dst, edge_weight)

    def check_cached(self, graph: Graph) -> Graph:
        """Refuses a second graph where the float layer would have gone on with the first.

        Raises:
            GraphError: Names the layer.
        """
        if self.cached and not torch.compiler.is_compiling():
            number = graph.identity
            if self._known_graph is None:
                self._known_graph = number
            if number != self._known_graph:
                raise GraphError(
                    f"{self.described} was made with cached=True, by which every forward is on the "
                    "same graph and the same edge weights, and got others: PyG would go on with "
                    "the first ones; use cached=False"
                )
        return graph

    def with_values(self, graph: Graph) -> Graph:
        """The graph of a layer that has no argument for edge weights.

        PyG's layers multiply with the values of a ``torch.sparse`` matrix, drop those of a
        ``SparseTensor``, and take no others.

        Raises:
            GraphError: If there are weights that PyG's layer could not have been given, or that a
                file without a site for them has no codes for.
        """
        if graph.edge_weight is None:
            return graph
        if graph.form == SPARSE_TENSOR or not graph.num_edges:
            return graph.topology()
        if graph.form == MATRIX and hasattr(self, "attention"):
            return graph
        if graph.form == MATRIX:
            why = "was packed by a version that had no edge weights here; pack it again"
        else:
            why = "takes no edge weights; use GraphConv, which has weighted sums"
        at = int((graph.edge_weight != 1).int().argmax())
        raise GraphError(
            f"{self.described} {why}, or leave the values out with edge_index alone: the edge from "
            f"node {int(graph.indices[at])} to node {int(graph.rows[at])} has the weight "
            f"{float(graph.edge_weight[at]):.6g}"
        )

    def place_sites(
        self, place: Placement, path: str, message_cols: int, output_cols: int, edges: bool = False
    ) -> None:
        """Asks the method for the quantizers of this layer."""

        def site(kind: str, cols: int) -> Quantizer:
            weighed = self.weighs_rows and kind == "message"
            info = SiteInfo(path, self.layer_type, kind, kind, cols, weighed=weighed)
            return place.activation(info)

        self.message = site("message", message_cols)
        self.output = site("output", output_cols)
        if edges:
            self.attention = site("attention", 1)

    def place_target(self, place: Placement, path: str, kind: str, num_cols: int) -> None:
        """Asks for the quantizer of rows of targets that are not the sources, ``<kind>_dst``."""
        name = f"{kind}_dst"
        info = SiteInfo(path, self.layer_type, kind, name, num_cols, optional=True)
        setattr(self, name, place.activation(info))


def _no_messages(layer_type: str, what: str) -> UnsupportedLayerError:
    return UnsupportedLayerError(
        f"{what} needs the messages of single edges, and a quantized {layer_type} has none: it "
        "adds packed rows. Use the float model, which has the same layers"
    )


def _hook_of(step: str) -> Any:
    def register(self: QuantConv, *args: Any, **keywords: Any) -> Any:
        """Refuses.

        Raises:
            UnsupportedLayerError: Always.
        """
        raise _no_messages(self.layer_type, f"a hook on {step}()")

    return register


for _step in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update"):
    for _when in ("forward_pre_hook", "forward_hook"):
        setattr(QuantConv, f"register_{_step}_{_when}", _hook_of(_step))


class Ends(NamedTuple):
    """The two ends of the edges.

    Attributes:
        source: Rows of the sources.
        target: Rows of the targets, the same object where they are the sources; None for none.
        num_src: Number of sources.
        num_dst: Number of targets; as many as sources where there are no rows of targets, unless
            the adjacency says otherwise.
    """

    source: Features
    target: Features | None
    num_src: int
    num_dst: int


def split_pair(x: Any, layer: QuantLayer) -> Ends:
    """Source and target features with their numbers of rows.

    Args:
        x: ``[N, C]``, packed rows, or a tuple or list ``(x_src, x_dst)`` of two such, the second
            of which may be None.
        layer: Who reads them.

    Raises:
        ShapeError: On anything else; names the layer.
    """
    if not isinstance(x, tuple | list):
        x = one_matrix(x, layer)
        return Ends(x, x, x.shape[0], x.shape[0])
    if len(x) != 2:
        raise ShapeError(
            f"layer {layer.described} got {len(x)} feature matrices: expected one, or a pair "
            "(x_src, x_dst)"
        )
    source = one_matrix(x[0], layer)
    if x[1] is None:
        return Ends(source, None, source.shape[0], source.shape[0])
    target = source if x[1] is x[0] else one_matrix(x[1], layer)
    return Ends(source, target, source.shape[0], target.shape[0])


def both_ends(x: Any, edge_attr: Any, layer: QuantLayer) -> tuple[Features, Features, int, int]:
    """:func:`split_pair` of a layer that compares both ends of an edge and reads nothing else.

    Args:
        x: See :func:`split_pair`.
        edge_attr: None, but for a layer with a map of edges, ``lin_edge`` or ``edge_dim``.
        layer: Who reads them.

    Raises:
        ShapeError: If there are no rows of targets, or rows of edges that nothing reads; names the
            layer.
    """
    ends = split_pair(x, layer)
    reads = getattr(layer, "edge_dim", None) is not None
    if ends.target is None or (edge_attr is not None and not reads):
        what = "a pair without targets" if ends.target is None else "edge_attr without edge_dim"
        raise ShapeError(f"layer {layer.described} got {what}: it reads both ends of an edge alone")
    return ends.source, ends.target, ends.num_src, ends.num_dst


def one_matrix(x: Any, layer: QuantLayer) -> Features:
    """``x`` in float32, if it is one feature matrix.

    Raises:
        ShapeError: If it is not; names the layer.
    """
    features = as_features(x, layer)
    if len(features.shape) != 2:
        raise ShapeError(
            f"layer {layer.described} got features of shape {list(features.shape)}, expected "
            "[num_nodes, channels]: one graph at a time, or one batched graph"
        )
    return features


def is_stack(x: Any) -> bool:
    """Whether ``x`` is several feature matrices on one graph, ``[*, N, C]``."""
    first = x[0] if isinstance(x, tuple | list) and x else x
    return isinstance(first, Tensor) and not first.is_nested and first.dim() > 2


def check_width(x: Features | None, expected: int, layer: QuantLayer) -> None:
    """Refuses features of the wrong width; 0 stands for one that is not known.

    Raises:
        ShapeError: Names the layer and both widths.
    """
    if x is not None and expected and x.shape[1] != expected:
        raise ShapeError(
            f"layer {layer.described} got features of shape {list(x.shape)}, expected rows of "
            f"{expected}"
        )


def weighed_rows(
    layer: QuantConv,
    site: Quantizer | RowQuantizer,
    x: Features,
    graph: Graph,
    factor: Any,
    uneven: bool = False,
) -> tuple[AnyRows, EdgeCodes | None]:
    """What a sum adds up, and the codes of its weights: None where it has none.

    Args:
        layer: Whose weights pass its ``attention`` site.
        site: Of the rows.
        x: float32 ``[N, C]``, or packed rows.
        graph: Topology and weights.
        factor: float32 ``[N]``, multiplied into the rows first, or None.
        uneven: Whether rows differ so much in size that a scale for each is worth weights where the
            edges have none; data decide, in models that are calibrated only.
    """
    if isinstance(site, RangeQuantizer):
        site.weighed = uneven or graph.edge_weight is not None
    rows = quantize_rows(site, x, factor)
    if not rows.by_row or not isinstance(x, Tensor):
        return rows, edge_codes(layer, graph)
    weight = None if graph.edge_weight is None else graph.edge_weight.view(-1, 1)
    return edges.with_row_scales(layer.attention, graph, weight, rows, x, factor)


def edge_codes(layer: QuantConv, graph: Graph) -> EdgeCodes | None:
    """The edge weights of ``graph`` at the layer's ``attention`` site; None where it has none."""
    if graph.edge_weight is None:
        return None
    return edges.edge_codes(layer.attention, graph, f"{layer.layer_name}.attention".lstrip("."))
