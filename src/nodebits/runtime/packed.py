"""The packed model: runs, accounts for its bytes, saves itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake

from nodebits.core.context import current, opened
from nodebits.core.errors import ConfigError, memory_errors
from nodebits.core.signature import names_of
from nodebits.engine.chain import ChainRecord
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.recording import recording
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.use import SiteUse
from nodebits.graph import Graph, as_graph, reordered
from nodebits.models import ModelSpec
from nodebits.nn.inputs import Features
from nodebits.nn.norm import frozen_norms
from nodebits.plan.example import Example
from nodebits.plan.plan import Plan
from nodebits.runtime.account import Account, account_of
from nodebits.runtime.features_file import read_features, write_features
from nodebits.runtime.float_layers import recording_float_inputs
from nodebits.runtime.gradients import without_gradients
from nodebits.runtime.input_packing import packed_input, quantized_paths, reader_of
from nodebits.runtime.layerwise import check_layerwise
from nodebits.runtime.model_file import write_model
from nodebits.runtime.module_run import run_module
from nodebits.runtime.named import Forward
from nodebits.runtime.places import check_places
from nodebits.runtime.planned import NOTHING
from nodebits.runtime.plans import Plans
from nodebits.runtime.reordered import (
    check_reorderable,
)
from nodebits.runtime.sampled import predict_nodes
from nodebits.runtime.saturation import Schedule, UseLog
from nodebits.runtime.traced import as_operator


class PackedModel(nn.Module):
    """A model whose quantized tensors exist only as packed integers.

    Made by :func:`nodebits.convert` and :func:`nodebits.load`.

    Attributes:
        module: The user's module with frozen layers.
        spec: Description of a named model, or None.
        chains: How the last forward passed on every layer's result: packed by a fused operator,
            or as a float matrix, and why.
        use_plans: Whether predictions may run as plans; False asks the module every time.
        use_graphs: Whether plans may be recorded as CUDA graphs; False starts every kernel anew.
        example: A small part of what the model was calibrated or trained on, where that is known;
            its plan is made on it.
    """

    def __init__(self, module: nn.Module, spec: ModelSpec | None = None) -> None:
        super().__init__()
        self.module = module
        self.spec = spec
        self.metadata: dict[str, Any] = {}
        self.chains: list[ChainRecord] = []
        self.use_plans = self.use_graphs = True
        self.example: Example | None = None
        self._schedule = Schedule()
        self._plans = Plans()
        self._wants_edges = False
        # torch.export asks this attribute for the names of the arguments.
        self.forward = Forward(self, module)
        self.eval()

    @property
    def folded(self) -> list[str]:
        """Paths of the batch norms that are a scale and a shift per column now."""
        return frozen_norms(self.module)

    def predict(self, *args: Any, **keywords: Any) -> Any:
        """Runs the model on what its module takes, as a rule ``predict(x, edge_index)``.

        Features are the float matrices ``[N, C]`` among the arguments, computed in float32 whatever
        their type, or what :meth:`pack_input` returned in their place; also in pairs, lists,
        dictionaries and PyG's ``Data``. Adjacencies may have any form, or be what
        :meth:`prepare_graph` returned. Ids for embeddings, ``edge_weight``, ``batch`` and the like
        are passed on as they are.

        Args:
            *args: What the module takes.
            **keywords: Likewise.

        Returns:
            What the module returns: as a rule float32 logits ``[N, classes]``.

        Raises:
            NonFiniteError: If features hold NaN, infinity or a value beyond float32 (count and
                first position).
            ShapeError: If they have another width, or are not floating point.
            NodeIndexError: If an edge names a node that does not exist.
            AccumulatorOverflowError: If an in-degree is beyond the exact range of int32.
            ConfigError: If the graph is reordered and the arguments cannot follow.
            OutOfMemoryError: If memory runs out; the model is as it was.
        """
        if torch.compiler.is_compiling():
            return as_operator(self, args, keywords)
        context = current()
        plain = self.use_plans and context.is_unobserved
        look = self._schedule.due((*args, *keywords.values()), context)
        if plain and not look:
            planned = self._plans.result(args, keywords, None, self.use_graphs)
            if planned is not NOTHING:
                return planned
        return self._asked(args, keywords, look, plain)

    def _asked(
        self, args: Sequence[Any], keywords: Mapping[str, Any], look: bool, plain: bool
    ) -> Any:
        """The result of the module; see :meth:`_run`.

        Args:
            args: As :meth:`predict` got them.
            keywords: Likewise.
            look: Whether to look at the use of codes.
            plain: Whether later calls like this one may run as a plan.
        """
        check_places(self.module, names_of(self.module.forward), args, keywords)
        with torch.no_grad(), memory_errors():
            result, self.chains = self._run(args, keywords, look)
        if plain:
            self._plans.seen(self.module, args, keywords)
        return result

    def _run(
        self, args: Sequence[Any], keywords: Mapping[str, Any], look: bool = False
    ) -> tuple[Any, list[ChainRecord]]:
        """The module's result, and how its layers' results were passed on.

        Args:
            args: As :meth:`predict` got them.
            keywords: Likewise.
            look: Whether to look at the use of codes, and to warn.
        """
        uses = UseLog() if look else None
        done = run_module(self.module, args, keywords, uses, self._wants_edges)
        self._wants_edges = done.wants_edges
        if uses is not None and uses.warn():
            self._schedule.done = True
        return done.result, done.chains

    def keep_plan(self, plan: Plan | str | None) -> None:
        """Keeps the plan of a file, or why it has none, while the model is as it is now.

        Predictions do not use it: they run what this process has compared with the module.
        """
        self._plans.keep(self.module, plan)

    def be_ready_for(self, example: Example) -> None:
        """Makes the plan for calls like an example, and keeps it for :meth:`save`."""
        self.example = example
        self._plans.adopt(self.module, example)

    @torch.no_grad()
    def predict_nodes(
        self,
        graph: Any,
        features: Features,
        node_ids: Any,
        num_neighbors: Sequence[int] = (10, 10),
        *,
        seed: int | None = None,
        replace: bool = False,
        **inputs: Any,
    ) -> Tensor:
        """Predicts for some nodes from a sample of their neighbourhood, in one call.

        It samples as PyG's ``NeighborLoader`` does (``subgraph_type="directional"``), takes the
        rows of the features that are needed, and runs all layers on the sample. Time and memory
        follow from the sample, not from the graph, if that is what :meth:`prepare_graph` returned.
        Degrees, and what GCN normalises by, are those of the sample.

        Args:
            graph: Any adjacency form of the whole graph, or what :meth:`prepare_graph` returned.
            features: Of all nodes: float ``[N, C]`` (ids for embeddings ``[N]``), or what
                :meth:`pack_input` returned, whose rows are taken without decoding them. Rows that
                are not reached are not read, so that they may lie in a mapped file, or in the
                host's memory beside a model on a device (``on_host``); the graph and further
                arguments then stay on the CPU, where the sample is drawn.
            node_ids: Integers ``[k]``, any of the N nodes, also more than once.
            num_neighbors: Neighbours of a node that are followed in each hop, -1 for all; as a
                rule one number per layer.
            seed: The same one gives the same sample on every machine and number of threads. None
                draws one from torch's generator.
            replace: Whether a neighbour may be drawn twice.
            **inputs: Further arguments of the module for the whole graph: with a row per edge where
                the name begins with ``edge`` (``edge_weight``), else with a row per node.

        Returns:
            float32 ``[k, ...]``: the rows of ``node_ids``, in their order.

        Raises:
            NodeIndexError: If a node does not exist.
            ShapeError: If ``node_ids`` are no integers, or an argument has not a row per node.
            ConfigError: If ``num_neighbors`` or ``seed`` is out of range, the graph is reordered,
                or the model does not return a row per node.
            GraphError: If the graph is bipartite, or has other nodes than the features.
            GraphMismatchError: If the model has parameters of single nodes.
            NonFiniteError: As :meth:`predict`, for the rows that are read; names the node.
        """
        with memory_errors():
            return predict_nodes(
                self.module, self._sampled, graph, features, node_ids, num_neighbors, seed, replace,
                inputs,
            )  # fmt: skip

    def _sampled(
        self, reached: Sequence[int], whole: tuple[Any, ...], args: Any, keywords: Any
    ) -> tuple[Any, bool]:
        """What the module returns for a sample, and whether that is the rows of its seeds alone.

        Args:
            reached: Nodes of the sample after the seeds, and after each hop.
            whole: What it was sampled from: the same for all samples, as far as the use of codes.
            args: Arguments of the module for the sample, by position.
            keywords: Likewise, by name.
        """
        context = current()
        plain, look = context.is_unobserved, self._schedule.due(whole, context)
        if self.use_plans and plain and not look:
            planned = self._plans.result(args, keywords, reached)
            if planned is not NOTHING:
                return planned, True
        return self._asked(args, keywords, look, self.use_plans and plain), False

    def named_parameters(self, *args: Any, **keywords: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """As of every module. Plans of what the model was are forgotten.

        ``torch.export`` asks for the parameters before it puts others in their place, where nobody
        can tell whether they were changed.
        """
        named: list[tuple[str, nn.Parameter]] = list(super().named_parameters(*args, **keywords))
        if not any(is_fake(parameter) for _, parameter in named):
            self._plans.forget_stale()
        return iter(named)

    def _forward(self, *args: Any, **keywords: Any) -> Any:
        """Same as :meth:`predict`; ``backward`` from the result is refused by name.

        Under ``torch.compile`` and ``torch.export`` it is one operator, the plan of the model.

        Raises:
            UnsupportedLayerError: By ``backward``, where an argument asks for a gradient.
            ConfigError: Under ``torch.compile`` and ``torch.export``, if there is no plan that
                runs without the module.
        """
        if torch.compiler.is_compiling():
            return as_operator(self, args, keywords)
        return without_gradients(self.predict(*args, **keywords), (args, keywords))

    @torch.no_grad()
    def inference(self, loader: Any, **options: Any) -> Tensor:
        """Runs a model of PyG layer by layer, on batches of whole neighbourhoods.

        Args:
            loader: PyG's ``NeighborLoader`` with ``num_neighbors=[-1]``, not shuffled.
            **options: As the float model takes them: ``device``, ``embedding_device``,
                ``progress_bar``, ``cache``.

        Returns:
            float32 ``[N, channels]``, rows in the order of the loader.

        Raises:
            ConfigError: If the module has no ``inference``, or the loader another form.
        """
        run = getattr(self.module, "inference", None)
        if run is None:
            raise ConfigError(
                f"{type(self.module).__name__} has no method inference(loader), which PyG's "
                "GCN, GraphSAGE, GIN and GAT have: call predict on every batch of the loader"
            )
        check_layerwise(self.module, loader)
        result: Tensor = run(loader, **options)
        return result

    def to(self, *args: Any, **keywords: Any) -> PackedModel:
        """As of every module; what it knows of its forward moves along."""
        self._plans.move(self.module, lambda: super(PackedModel, self).to(*args, **keywords))
        return self

    def cpu(self) -> PackedModel:
        """As :meth:`to`."""
        return self.to("cpu")

    def cuda(self, device: int | torch.device | None = None) -> PackedModel:
        """As :meth:`to`."""
        numbered = torch.device("cuda", device) if isinstance(device, int) else device
        return self.to("cuda" if numbered is None else numbered)

    def running(self) -> list[dict[str, Any]]:
        """What runs predictions now: an entry per kind of call that has a plan.

        ``device`` is where, ``steps`` are names of steps and what computes each, ``graphs`` says
        which sizes are recorded as CUDA graphs, or why none is.
        """
        return self._plans.running(self.use_graphs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedModel:
        """Other floating types are ignored: packed models compute in float32 on any device."""

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            if tensor.is_floating_point() and result.dtype != tensor.dtype:
                return tensor.to(result.device)
            return result

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self

    def train(self, mode: bool = True) -> PackedModel:
        """Packed models do not train: they stay in evaluation mode."""
        return super().train(False)

    def prepare_graph(
        self,
        edge_index: Any,
        num_nodes: int,
        edge_weight: Tensor | None = None,
        reorder: bool = False,
    ) -> Graph:
        """Converts an adjacency once, to be reused in place of ``edge_index``.

        Degrees, self loops and normalisation factors are kept with it from the first forward on.

        Args:
            edge_index: Any adjacency form.
            num_nodes: Number of nodes.
            edge_weight: float ``[E]`` or None.
            reorder: Renumber the nodes inside so that neighbours lie together: worth it for large
                graphs with communities that are used many times (see ``docs/performance.md``).
                Features, edge weights and results keep the user's order, and the same bits.

        Raises:
            GraphError: On a malformed adjacency.
            NodeIndexError: On an index outside the graph.
            ConfigError: If the model has parameters of single nodes and ``reorder`` is asked for.
        """
        graph = as_graph(edge_index, num_nodes, num_nodes, edge_weight)
        if not reorder:
            return graph
        check_reorderable(self.module)
        return reordered(graph)

    @torch.no_grad()
    def pack_input(
        self, x: Tensor, layer: str | None = None, edge_index: Any = None
    ) -> PackedInput:
        """Packs features ahead: the matrix that is passed on is as small as its codes.

        Args:
            x: float ``[N, C]``.
            layer: Path of the layer that reads ``x``; default the first one.
            edge_index: Any adjacency form; needed only where widths follow the degree of a node,
                and where :meth:`predict` will get a reordered graph: that graph.

        Returns:
            Packed features, to be passed to :meth:`predict` in place of ``x``.

        Raises:
            NonFiniteError: As :meth:`predict`.
            ShapeError: If ``x`` is not a float matrix.
            ConfigError: If the layer does not exist.
        """
        return packed_input(self.module, x, layer, edge_index)

    def first_sites(self, layer: str | None = None) -> dict[str, RowQuantizer]:
        """The sites that read features, by path.

        Args:
            layer: Path of the layer; default the first one.

        Raises:
            ConfigError: As :meth:`pack_input`.
        """
        sites = reader_of(self.module, layer).input_sites()
        return {site.site_name: site for site in sites if isinstance(site, RowQuantizer)}

    def save_input(self, features: PackedInput, path: str | Path) -> None:
        """Writes packed features to a file of their own, atomically.

        What the model holds (a width and a scale per node) is not repeated.

        Args:
            features: What :meth:`pack_input` returned, without a reordered graph.
            path: File to write.

        Raises:
            ConfigError: If they were packed for another model, or for a reordered graph.
        """
        write_features(features, self.row_sites(), path)

    def load_input(self, path: str | Path) -> PackedInput:
        """Reads what :meth:`save_input` wrote, to be passed to :meth:`predict`.

        Raises:
            FileNotFoundError: If there is no file.
            FileFormatError: If it is foreign, truncated or damaged.
            FileVersionError: If a newer version wrote it.
            ConfigError: If it belongs to another model.
        """
        return read_features(path, self.row_sites())

    def row_sites(self) -> dict[str, RowQuantizer]:
        """Frozen activation quantizers by site path."""
        sites = (m for m in self.module.modules() if isinstance(m, RowQuantizer))
        return {site.site_name: site for site in sites}

    def serve_other_graphs(self, allow: bool = True) -> None:
        """Lets a model with a bitwidth per node run on other graphs than its own.

        A row of another graph then takes the scale and width of the node whose range is nearest
        (A2Q's Nearest Neighbour Strategy). The choice is saved with the model.

        Args:
            allow: False refuses other graphs again, with ``GraphMismatchError``.
        """
        for site in self.row_sites().values():
            site.serve_other_graphs(allow)

    def layer_paths(self) -> list[str]:
        """Paths of the quantized layers, parents before children."""
        return quantized_paths(self.module)

    def plan(self, *args: Any, **keywords: Any) -> Plan | str:
        """The forward as steps that need no Python (:mod:`nodebits.plan`).

        :meth:`predict` makes it by itself, at the second call of a kind, and uses it; a file holds
        one for ``nodebits.lite``: that of the arguments that were given here last.

        Args:
            *args: As in :meth:`predict`. Without any: of the calls that the model saw so far, of
                what it was trained or calibrated on, or of what its layers tell of its input.
            **keywords: Likewise.

        Returns:
            The plan, or in words why there is none.
        """
        if args or keywords:
            found = self._plans.made(self.module, args, keywords)
            return found if isinstance(found, str) else found.plan
        return self._plans.for_file(self.module, self.example)

    @torch.no_grad()
    def account(self, *args: Any, **keywords: Any) -> Account:
        """Counts the bits of all activation tensors of one forward, and the weights' bytes.

        Layers that stayed in float count with all that they read and hold.

        Args:
            *args: As in :meth:`predict`.
            **keywords: Likewise.
        """
        with recording() as records, recording_float_inputs(self.module) as float_inputs:
            _, chains = self._run(args, keywords)
        return account_of(self.module, records, float_inputs, chains)

    @torch.no_grad()
    def watch(self, *args: Any, **keywords: Any) -> list[SiteUse]:
        """Runs the model and tells how much of the data lies at the ends of the sites' ranges.

        A range is that of the data it was trained or calibrated on; other graphs may go beyond it.
        :meth:`predict` looks by itself, at its first calls and now and then later, and warns once.

        Args:
            *args: As in :meth:`predict`.
            **keywords: Likewise.

        Returns:
            One entry per site, what is furthest from its expectation first.
        """
        log = UseLog()
        with opened(uses=log, stepwise=True):
            self._run(args, keywords)
        return log.uses()

    def save(
        self,
        path: str | Path,
        metadata: dict[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the model to one file, atomically; see :mod:`nodebits.runtime.container`.

        Args:
            path: File to write; an existing one is replaced only when the new one is complete.
            metadata: JSON to keep with the model, such as dataset and accuracy.
            arguments: What the constructor of the model's own class is called with when the file
                is loaded without ``model``: numbers, text, lists. By default they are told from
                the attributes of the module where these make the same one again.

        Raises:
            ConfigError: If ``arguments`` make another module.
        """
        plan = self._plans.for_file(self.module, self.example)
        write_model(
            path, self.module, self.spec, self.folded, metadata, arguments,
            plan,
        )  # fmt: skip
