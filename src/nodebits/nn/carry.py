"""What was attached to a layer comes along to its successor."""

from __future__ import annotations

import types
import weakref

from torch import nn

from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer

HOOKS = (
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


def carry_over(old: nn.Module, new: nn.Module) -> None:
    """Gives ``new`` what ``old`` has and it lacks: hooks, attributes, tensors, submodules.

    Hook dictionaries are moved, not copied: the handles that hook registration returned still
    remove what they registered.

    Args:
        old: The layer that is replaced: float, or another form of the same layer.
        new: Its successor.
    """
    for name in HOOKS:
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
