"""A layer takes another's place in a module, and takes over what was attached to it."""

from __future__ import annotations

import types
import weakref
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.layer import QuantLayer
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_SITES = (Quantizer, RowQuantizer, WeightQuantizer, PackedWeight)
# PyG's layers keep a graph in attributes of these names (cached=True); ours do not read them.
_CACHES = ("_cached_edge_index", "_cached_adj_t")
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
        return reparametrized(module)
    for name, value in vars(module).items():
        if name.endswith("_hooks") and name not in _HOOKS and value:
            return (
                f"it has {name.strip('_').replace('_', ' ')}, and integer sums have no messages of "
                "single edges: remove them"
            )
    return reparametrized(module)


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


def reparametrized(module: nn.Module) -> str | None:
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


def carry_over(old: nn.Module, new: QuantLayer) -> None:
    """Gives ``new`` what ``old`` has and it lacks: hooks, attributes, tensors, submodules.

    Hook dictionaries are moved, not copied: the handles that hook registration returned still
    remove what they registered.

    Args:
        old: The layer that is replaced: float, or another form of the same layer.
        new: Its successor.
    """
    for name in _HOOKS:
        if name in vars(old):
            new.__dict__[name] = vars(old)[name]
    for hooks in (new._forward_pre_hooks, new._forward_hooks, new._load_state_dict_pre_hooks):
        for key, hook in hooks.items():
            if isinstance(hook, types.MethodType) and hook.__self__ is old:
                hooks[key] = types.MethodType(hook.__func__, new)
            elif getattr(hook, "with_module", False):  # torch's wrapper, which passes the module
                vars(hook)["module"] = weakref.ref(new)
    has = {*vars(new), *new._parameters, *new._buffers, *new._modules}
    for name, value in vars(old).items():
        inherited = getattr(type(new), name, None)
        if name in has or name in _CACHES or callable(inherited) or isinstance(inherited, property):
            continue
        new.__dict__[name] = value
    for name, parameter in old._parameters.items():
        if name not in has:
            new.register_parameter(name, parameter)
    for name, buffer in old._buffers.items():
        if name not in has:
            new.register_buffer(name, buffer, name not in old._non_persistent_buffers_set)
    for name, child in old._modules.items():
        if name not in has and child is not None and not isinstance(child, _SITES):
            new.add_module(name, child)
    new.training = old.training
    for site in new.children():
        if isinstance(site, _SITES):
            site.train(old.training)


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
