"""ARMAConv (Bianchi et al. 2019): stacks of recursive filters, as sums and products of codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import ARMAConv

from nodebits.core.file_fields import FLAG, SIZE, STEPS, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph
from nodebits.nn.conv import check_width, is_stack, one_matrix
from nodebits.nn.functional import AnyRows, check_product, linear, product_rows
from nodebits.nn.inputs import Features
from nodebits.nn.linear import check_weight, requantize
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.propagation import Operator, Propagation
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer

# Activations that treat every number by itself, so that stacks may pass them one after another.
_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
    nn.LogSigmoid, nn.Identity,
)  # fmt: skip
_FUNCTIONS = (
    torch.relu, torch.tanh, torch.sigmoid, Tensor.relu, Tensor.tanh, Tensor.sigmoid,
    F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.tanh,
    F.sigmoid, F.softplus, F.softsign, F.hardtanh, F.hardswish, F.hardsigmoid, F.logsigmoid,
)  # fmt: skip


@register_layer(ARMAConv)
class QuantARMAConv(Propagation):
    """``mean_k X_k^T`` with ``X_k^t = act((A_hat X_k^{t-1}) W_k^t + x V_k^t + b_k^t)``.

    Maps and sums commute, so a sum over neighbours comes first and both products of a stack are one
    call, with its bias and its ReLU, that writes the codes of the next sum: no float rows lie
    between. Only where all stacks together are narrower than ``x`` do its rows meet ``W^0`` before
    their sum, which then has the columns of all stacks. No node has a loop of its own.

    Attributes:
        input: Site of x, as maps read it.
        message_0: Site of what the first sum adds up; ``input_0`` that of its result where a map
            reads it.
        message_t_k: Site of what stack k adds up in step t, and ``input_t_k`` of the result.
        init_weight: float32 ``[K, C, M]``, W of the first step.
        weight: float32 ``[max(1, T - 1), K, M, M]``, W of the others.
        root_weight: float32 ``[T, K, C, M]``, V.
        bias: float32 ``[T, K, 1, M]`` or None.
        shared_weights: Whether W of later steps, V and b are those of all steps.
        act: What follows a step, or None.
        dropout: Share of x that a map of the root does not see in training.
    """

    layer_type = "ARMAConv"
    options: ClassVar[Options] = {
        "in_channels": SIZE,
        "out_channels": SIZE,
        "num_stacks": STEPS,
        "steps": STEPS,
        "shared_weights": FLAG,
        "bias": FLAG,
    }
    derived_options: ClassVar = {
        "in_channels": lambda module: module.init_weight.size(1),
        "steps": lambda module: module.num_layers,
        "shared_weights": lambda module: bool(module.shared_weights),
    }
    own_values: ClassVar = {
        "bias": lambda layer: (
            1 if layer.shared_weights else layer.steps,
            layer.num_stacks,
            1,
            layer.out_channels,
        ),
    }
    packed_parameters = ("weight", "init_weight", "root_weight")
    add_self_loops = False
    input: Quantizer | RowQuantizer
    in_channels: int
    out_channels: int
    num_stacks: int
    shared_weights: bool
    act: Any
    dropout: float = 0.0
    bias: nn.Parameter | None

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        # Of Propagation itself the answer is about layers whose dropout is of edges.
        said = super(Propagation, cls).unsupported(module)
        if said is None and cls.derived_options["steps"](module) < 1:
            return "it has no step"
        return said

    # --- sites ---

    @property
    def _maps_first(self) -> bool:
        """Whether all stacks together are narrower than x."""
        return self.num_stacks * self.out_channels < self.in_channels

    def _stacks(self, name: str) -> list[str]:
        return [f"{name}_{k}" for k in range(self.num_stacks)]

    def _rows(self) -> dict[str, tuple[str, int]]:
        """Kind and columns of every site of rows, by name."""
        wide = self.num_stacks * self.out_channels
        found = {"input": ("input", self.in_channels)}
        found["message_0"] = "message", wide if self._maps_first else self.in_channels
        if not self._maps_first:
            found["input_0"] = "input", self.in_channels
        for step in range(1, self.steps):
            for kind in ("message", "input"):
                names = self._stacks(f"{kind}_{step}")
                found.update(dict.fromkeys(names, (kind, self.out_channels)))
        return found

    def _at(self, step: int) -> int:
        """Which weights of later steps, or of roots, a step has."""
        return 0 if self.shared_weights else step

    def _weights(self) -> dict[str, tuple[int, int, str]]:
        """Shape of every weight site and the rows it meets, by name."""
        each, first = self.out_channels, "input" if self._maps_first else "input_0"
        names = ["init"] if self._maps_first else self._stacks("init")
        rows = self.num_stacks * each if self._maps_first else each
        found = dict.fromkeys(names, (rows, self.in_channels, first))
        for step in range(1 if self.shared_weights else self.steps):
            roots = self._stacks(f"root_{step}")
            found.update(dict.fromkeys(roots, (each, self.in_channels, "input")))
        for step in range(1, min(self.steps, 2) if self.shared_weights else self.steps):
            for k, name in enumerate(self._stacks(f"weight_{step}")):
                found[name] = each, each, f"input_{step}_{k}"
        return found

    def _matrix(self, name: str) -> Tensor:
        """The float weight of a site, ``[M, C]``."""
        kind, *at = name.split("_")
        place = [int(number) for number in at]
        if kind == "init":
            first = self._float("init_weight")
            return first[place[0]].t() if place else first.transpose(1, 2).flatten(0, 1)
        whole = self._float("weight" if kind == "weight" else "root_weight")
        step = self._at(place[0]) if kind == "root" else max(place[0] - 1, 0)
        return whole[step, place[1]].t()

    def _float(self, name: str) -> Tensor:
        parameter = self._parameters[name]
        assert parameter is not None
        return parameter

    def place_quantizers(self, place: Placement, path: str) -> None:
        for name, (kind, width) in self._rows().items():
            self._place(place, path, kind, name, width)
        self._place(place, path, "output", "output", self.out_channels)
        self._place(place, path, "attention", "attention", 1)
        for name, (channels, width, rows) in self._weights().items():
            site = place.weight(SiteInfo(path, self.layer_type, "weight", name, width, channels))
            self._modules[f"quantized_{name}"] = site
            check_product(getattr(self, rows), site, width, path)

    def required_sites(self) -> set[str]:
        weights = {f"quantized_{name}" for name in self._weights()}
        return {"output", "attention", *self._rows()} | weights

    # --- forward ---

    def forward(self, x: Any, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``; packed rows where the first map comes before the first sum.
            edge_index: Any adjacency form.
            edge_weight: float ``[E]`` or None.

        Returns:
            float32 ``[*, N, M]``.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, edge_weight)
        x, graph = self._entered(x, edge_index, edge_weight)
        with self.layer_scope(graph):
            operator = self.operator(graph)
            if not self._maps_first:  # both pack x in one pass
                sites = [self.site("message", 0), self.input]
                expect_sites(x, sites, [operator.factor, None])
            rows = product_rows(self.input, x)
            stacks = self._first(x, rows, operator)
            for step in range(1, self.steps):
                roots, at = self._roots(x, rows), 1 if self.shared_weights else step
                for k, before in enumerate(stacks):
                    summed = operator(self.site("message", step, k), before, waits=True)
                    codes = product_rows(self.site("input", step, k), summed)
                    own = linear(codes, self._weight(f"weight_{at}_{k}"), None, layer=self)
                    stacks[k] = own + self._root(roots, step, k)
                stacks = self._activated(stacks)
            out = stacks[0]
            for other in stacks[1:]:
                out = out + other
            out = out if self.num_stacks == 1 else out * (1.0 / self.num_stacks)
            return requantize(self.output, out)

    def _entered(self, x: Any, adjacency: Any, weight: Tensor | None) -> tuple[Features, Graph]:
        if not self._maps_first:
            return self.enter(x, adjacency, weight)
        x = one_matrix(x, self)
        check_width(x, self.in_channels, self)
        return x, self.check_cached(self.graph_of(adjacency, x.shape[0], x.shape[0], weight))

    def _first(self, x: Features, rows: AnyRows, operator: Operator) -> list[Tensor]:
        """Results of the first step, one for each stack."""
        if self._maps_first:
            mapped = linear(rows, self._weight("init"), None, layer=self)
            summed = operator(self.site("message", 0), mapped)
            own = [part.contiguous() for part in summed.split(self.out_channels, 1)]
        else:
            assert isinstance(x, Tensor)
            summed = operator(self.site("message", 0), x, waits=True)
            codes = product_rows(self.site("input", 0), summed)
            weights = (self._weight(name) for name in self._stacks("init"))
            own = [linear(codes, weight, None, layer=self) for weight in weights]
        roots = self._roots(x, rows)
        return self._activated([part + self._root(roots, 0, k) for k, part in enumerate(own)])

    def _roots(self, x: Features, rows: AnyRows) -> AnyRows:
        """What maps of the root read in a step: ``rows`` are those of x."""
        if self.training and self.dropout > 0 and isinstance(x, Tensor):
            return product_rows(self.input, F.dropout(x, self.dropout))
        return rows

    def _root(self, rows: AnyRows, step: int, k: int) -> Tensor:
        """``x V_k + b_k`` of a step."""
        at = self._at(step)
        bias = None if self.bias is None else self.bias[at, k].view(-1)
        return linear(rows, self._weight(f"root_{at}_{k}"), bias, layer=self)

    def _activated(self, stacks: Sequence[Tensor]) -> list[Tensor]:
        act = self.act
        if act is None or type(act) in _MODULES or act in _FUNCTIONS:
            return [stack if act is None else act(stack) for stack in stacks]
        made = act(torch.stack(list(stacks)))
        return [made[k] for k in range(len(stacks))]

    def _weight(self, name: str) -> Any:
        """Codes of a weight, in training or packed."""
        site: Any = self._modules[f"quantized_{name}"]
        return site if isinstance(site, PackedWeight) else site(self._matrix(name))

    # --- packed ---

    def freeze(self) -> None:
        super().freeze()
        for name in self._weights():
            site = self._modules[f"quantized_{name}"]
            if isinstance(site, WeightQuantizer):
                packed = site.freeze(self._matrix(name).contiguous())
                self._modules[f"quantized_{name}"] = packed
        for name in self.packed_parameters:
            self._parameters[name] = None

    def check_loaded(self) -> None:
        for name, (channels, width, _) in self._weights().items():
            check_weight(self._modules.get(f"quantized_{name}"), (channels, width), name)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.input] if self._maps_first else []

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return (
            f"{self.in_channels}, {self.out_channels}, num_stacks={self.num_stacks}, "
            f"steps={self.steps}"
        )
