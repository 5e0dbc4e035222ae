"""The arguments of one forward pass: what the data hold, under the names that the model asks for.

A model's ``forward`` says which fields of a PyG ``Data`` it reads: features, adjacency, edge
weights, edge features, positions, the batch vector, or the ``Data`` itself.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from nodebits.core.errors import ConfigError, ShapeError
from nodebits.graph import graph_scope
from nodebits.runtime import PackedModel
from nodebits.train.errors import IgnoredDataWarning

# Fields of a Data that say what is to be predicted, and where: never an argument.
LABEL_FIELDS = frozenset({"y", "edge_label", "train_mask", "val_mask", "test_mask"})
# Parameters that are never another name of the features or the adjacency.
_OTHER_PARAMETERS = frozenset(
    {"edge_weight", "edge_attr", "edge_type", "batch", "batch_size", "pos", "ptr", "size"}
    | {"edge_label_index"}
    | {"num_nodes", "num_graphs", "mask", "return_attention_weights"}
)
_FEATURE_NAMES = frozenset({"x", "h", "input", "inputs", "feat", "feats", "features"})
_DATA_NAMES = frozenset({"data", "batch", "graph", "g"})
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

Parameters = list[inspect.Parameter]


@dataclass(frozen=True)
class Inputs:
    """Arguments of one forward pass.

    Attributes:
        x: Features ``[nodes, channels]``, node numbers for an embedding, or packed features.
        edge_index: Any adjacency form.
        batch: Graph of each node; ``None`` for node-level tasks.
        others: Further fields of the data by name, such as ``edge_weight``; a model is given those
            that its forward takes.
        data: The same as one ``Data``, for models that take that; ``None`` where there is none.
        target: The type of nodes whose logits are asked for, of a model that returns several.
    """

    x: Any
    edge_index: Any
    batch: Tensor | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    data: Any = None
    target: str | None = None

    def scope(self) -> AbstractContextManager[object]:
        """Tells the layers which graph each node belongs to."""
        return nullcontext() if self.batch is None else graph_scope(batch=self.batch)

    def repeated(self, packed: PackedModel) -> Inputs:
        """The same call as a service would repeat it.

        Args:
            packed: The model that is asked.

        Returns:
            A prepared graph, and features packed ahead where the model reads their codes alone.
        """
        graph = packed.prepare_graph(self.edge_index, self.x.size(0))
        floats = Inputs(self.x, graph, self.batch, self.others)
        try:
            codes = replace(floats, x=packed.pack_input(self.x, edge_index=graph))
            codes.apply(packed.predict)
        except (ConfigError, ShapeError, TypeError):  # as the forward says, which may be any code
            return floats
        return codes

    def call(self, function: Callable[..., Any], model: nn.Module | None = None) -> Any:
        """Calls ``function`` with these inputs, within their scope.

        Args:
            function: A model, a method of one, or whatever passes its arguments on to a model.
            model: The model whose forward names the arguments; needed where ``function`` is
                neither a module nor a method of one.
        """
        owner = model if model is not None else getattr(function, "__self__", function)
        arguments, keywords = self.arguments(owner)
        with self.scope():
            return function(*arguments, **keywords)

    def apply(self, model: Callable[..., Any]) -> Tensor:
        """Returns the logits of ``model`` for these inputs."""
        logits = self.call(model)
        if isinstance(logits, Mapping) and self.target in logits:
            logits = logits[self.target]
        if not isinstance(logits, Tensor):
            raise ShapeError(f"the model returned {type(logits).__name__}, not a tensor of logits")
        return logits

    def arguments(self, model: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns positional and keyword arguments for ``model``.

        Raises:
            ConfigError: The forward needs something that the data do not hold.
            ShapeError: Features are integers and the model has no embedding to look them up in.
        """
        module, parameters = _forward_of(model)
        if _takes_data(parameters) and self.data is not None:
            return (self.data,), {}
        self._check_features(module)
        values = self._values(parameters)
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters) and not values:
            return self._unnamed(parameters)
        arguments: list[Any] = []
        keywords: dict[str, Any] = {}
        for place, parameter in enumerate(p for p in parameters if p.kind in _POSITIONAL):
            if parameter.name not in values:
                continue
            value = values.pop(parameter.name)
            leading = place == len(arguments) and (value is self.x or value is self.edge_index)
            if leading or parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                arguments.append(value)
            else:
                keywords[parameter.name] = value
        return tuple(arguments), keywords | values

    def warn_ignored(self, model: Any) -> None:
        """Warns where the data hold edge weights that ``model`` is not given."""
        module, parameters = _forward_of(model)
        if _takes_data(parameters):
            return
        given = self._values(parameters) or self._unnamed(parameters)[1]
        name = type(module).__name__
        takes = getattr(module, "supports_edge_weight", True)
        if "edge_weight" in self.others and not ("edge_weight" in given and takes):
            _warn(
                f"the data have edge_weight, but {name} does not take it: every edge counts as 1. "
                "Add edge_weight to the arguments of its forward (and pass it to the layers), or "
                "delete data.edge_weight"
            )
        attributes = self.others.get("edge_attr")
        one_number = (
            isinstance(attributes, Tensor)
            and attributes.is_floating_point()
            and attributes.numel() == attributes.size(0)
        )
        heeded = "edge_attr" in given and getattr(module, "supports_edge_attr", True)
        if one_number and not heeded and "edge_weight" not in given:
            _warn(
                f"the data have one number per edge in edge_attr, but {name} does not take it: "
                "every edge counts as 1. For weights: data.edge_weight = data.edge_attr.view(-1) "
                "and a forward that takes edge_weight; otherwise delete data.edge_attr"
            )

    def _named(self) -> dict[str, Any]:
        """All that a forward may ask for by name."""
        named = {**self.others, "x": self.x, "edge_index": self.edge_index}
        if self.batch is not None:
            named["batch"] = self.batch
        return named

    def _values(self, parameters: Parameters) -> dict[str, Any]:
        """Value by name of the forward's parameters; empty where it names none."""
        named = self._named()
        known = [p for p in parameters if p.kind in (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)]
        values = {p.name: named[p.name] for p in known if p.name in named}
        roles = [r for r in ("x", "edge_index", "batch") if r in named and r not in values]
        if "adj_t" in values and "edge_index" in roles:
            roles.remove("edge_index")
        free = [p for p in known if p.name not in named and p.name not in _OTHER_PARAMETERS]
        for role, parameter in zip(roles, free, strict=False):
            if _needed(parameter) or (role == "edge_index" and _like_adjacency(parameter.name)):
                values[parameter.name] = named[role]
        if not known:
            return {}
        missing = [p.name for p in known if p.name not in values and _needed(p)]
        if missing:
            raise ConfigError(
                f"the model's forward needs {', '.join(missing)}, which the data do not have. They "
                f"have {', '.join(sorted(named))}"
            )
        if self.batch is not None and not any(v is self.batch for v in values.values()):
            if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
                raise ConfigError(
                    "the model's forward takes no 'batch': a graph-level task needs to know which "
                    "graph each node belongs to, as in forward(self, x, edge_index, batch)"
                )
            values["batch"] = self.batch
        return values

    def _unnamed(self, parameters: Parameters) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """For a forward of ``*args, **kwargs`` alone."""
        keywords = {} if self.batch is None else {"batch": self.batch}
        if "edge_weight" in self.others and any(
            p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters
        ):
            keywords["edge_weight"] = self.others["edge_weight"]
        return (self.x, self.edge_index), keywords

    def _check_features(self, module: Any) -> None:
        x = self.x
        if not isinstance(x, Tensor) or x.is_floating_point():
            return
        if isinstance(module, nn.Module) and any(
            isinstance(m, nn.Embedding) for m in module.modules()
        ):
            return
        raise ShapeError(
            f"x holds {x.dtype} and the model has no embedding to look numbers up in: use a float "
            "tensor [nodes, features], data.x = data.x.float()"
        )


def _forward_of(model: Any) -> tuple[Any, Parameters]:
    """The module whose forward names its arguments, and those.

    A forward of ``*args, **kwargs`` around a single module (DistributedDataParallel, a compiled or
    packed model) passes them on to that module.
    """
    while True:
        forward = model.forward if isinstance(model, nn.Module) else model
        parameters = list(inspect.signature(forward).parameters.values())
        kinds = {p.kind for p in parameters}
        children = list(model.children()) if isinstance(model, nn.Module) else []
        both = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        if not both <= kinds or len(children) != 1:
            return model, parameters
        model = children[0]


def _needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def _like_adjacency(name: str) -> bool:
    return "adj" in name or "edge" in name or name in ("ei", "graph", "g")


def _takes_data(parameters: Parameters) -> bool:
    """Whether a ``Data`` is the one thing that the forward needs."""
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return False
    needed = [p for p in parameters if p.kind in _POSITIONAL and _needed(p)]
    if len(needed) != 1:
        return False
    name, annotation = needed[0].name, str(needed[0].annotation)
    if name in _FEATURE_NAMES | {"edge_index"} or "Tensor" in annotation:
        return False
    return name in _DATA_NAMES or len(parameters) == 1 or "Data" in annotation


def _warn(message: str) -> None:
    warnings.warn(message, IgnoredDataWarning, stacklevel=4)
