"""A layer takes another's place in a module; what stands in the way of that."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from nodebits.nn.carry import HOOKS
from nodebits.nn.layer import QuantLayer

# Methods that PyG itself puts on an object, where an explainer was at work.
_PYG_METHODS = ("propagate", "edge_updater")
_UNDO = (
    (prune.BasePruningMethod, "torch.nn.utils.prune.remove"),
    (SpectralNorm, "torch.nn.utils.remove_spectral_norm"),
    (WeightNorm, "torch.nn.utils.remove_weight_norm"),
)


def obstacle(module: nn.Module, successor: type[QuantLayer] = QuantLayer) -> str | None:
    """Why ``module``, of a supported type, must stay as it is: a swap would lose something.

    See :func:`replaced_method` for what its parts must not lose either.

    Args:
        module: The float layer.
        successor: What would take its place.
    """
    if successor.has_messages:
        return _reparametrized(module)
    for name, value in vars(module).items():
        if name.endswith("_hooks") and name not in HOOKS and value:
            return (
                f"it has {name.strip('_').replace('_', ' ')}, and integer sums have no messages of "
                "single edges: remove them"
            )
    return _reparametrized(module)


def replaced_method(module: nn.Module) -> str | None:
    """Which method was replaced on the object, and what to do; None where none was."""
    for name, value in vars(module).items():
        if name in _PYG_METHODS or not callable(value):
            continue
        if callable(getattr(type(module), name, None)):
            return (
                f"its {name}() was replaced on the object, which a swap would undo: put the change "
                "into a module around the layer, or into a forward hook"
            )
    return None


def _reparametrized(module: nn.Module) -> str | None:
    """What parameter is made from others in every forward, and how to end that."""
    names = parametrized_names(module)
    if names:
        return (
            f"its {names[0]} is parametrized: call torch.nn.utils.parametrize."
            f"remove_parametrizations(layer, {names[0]!r}) first"
        )
    for name, value in vars(module).items():
        if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
            continue
        made = any(f"{name}{suffix}" in module._parameters for suffix in ("_orig", "_g"))
        if made or name in ("weight", "bias"):
            return f"its {name} is no parameter but computed from others: {_undo(module, name)}"
    if "weight_g" in module._parameters or "weight_orig" in module._parameters:
        return f"its weight is no parameter but computed from others: {_undo(module, 'weight')}"
    return None


def parametrized_names(module: nn.Module) -> list[str]:
    """Names of the tensors that ``torch.nn.utils.parametrize`` computes."""
    return list(module._modules["parametrizations"]) if parametrize.is_parametrized(module) else []  # type: ignore[call-overload]


def _undo(module: nn.Module, name: str) -> str:
    for hook in module._forward_pre_hooks.values():
        for kind, function in _UNDO:
            if isinstance(hook, kind):
                return f"call {function}(layer, {name!r}) first"
    return "make it a parameter first"


def replace_children(root: nn.Module, new_of: Mapping[nn.Module, nn.Module]) -> None:
    """Puts successors in the place of layers, under every name that they have."""
    for module in list(root.modules()):
        for name, child in module._modules.items():
            if child is not None and child in new_of:
                module._modules[name] = new_of[child]


def avoid_fast_paths(root: nn.Module) -> None:
    """Makes torch's transformers call their linears: in evaluation they read the weights."""
    for module in root.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and _has_layers(module):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder) and _has_layers(module):
            module.use_nested_tensor = False


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(child, QuantLayer) for child in module.modules())
