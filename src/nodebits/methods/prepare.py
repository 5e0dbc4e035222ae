"""Swapping supported layers for layers with sites, and calibrating them."""

from __future__ import annotations

import contextlib
import itertools
import types
import warnings

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch_geometric.nn.aggr import EquilibriumAggregation

from nodebits.core.errors import (
    ConfigError,
    NothingToQuantizeError,
    UnsupportedLayerWarning,
)
from nodebits.methods.base import QuantConfig
from nodebits.methods.placement import RecordedPlacement
from nodebits.methods.prompts import add_prompt, check_prompts
from nodebits.nn.evaluation import swap_evaluation
from nodebits.nn.layer import QuantLayer, lazy_reason
from nodebits.nn.prompt import AggregationPrompt
from nodebits.nn.quantizers import Quantizer
from nodebits.nn.references import References, captured_modules
from nodebits.nn.registry import derived_from, general_layer_for, layer_for, supported_layers
from nodebits.nn.swap import (
    avoid_fast_paths,
    obstacle,
    parametrized_names,
    replaced_method,
)
from nodebits.nn.wrappers import copy_module, unwrap, unwrap_children

# Where a prepared model keeps its configuration.
_METHOD = "_nodebits_method"


def prepare(model: nn.Module, config: QuantConfig, *, inplace: bool = False) -> nn.Module:
    """Swaps every supported layer of ``model`` for its form with sites.

    Parameters keep their values: a trained model is a warm start. A swapped layer is an instance
    of the type it was, and keeps its hooks and whatever else was attached to it. A layer that a
    swap would change (a parametrized or pruned weight, a replaced method, a subclass) stays in
    float; a warning names it and the reason. Convolutions without a form of their own become
    :class:`~nodebits.nn.propagate.layer.QuantMessagePassing`, batch norms
    :class:`~nodebits.nn.norm.QuantBatchNorm`. Every module keeps its mode: a norm in
    evaluation stays there.

    Args:
        model: Float model that contains PyG convolutions or linears. Of a compiled, data-parallel
            or averaged one, the model inside is prepared.
        config: Method and widths.
        inplace: Change ``model`` itself instead of a copy.

    Returns:
        The prepared model, to be trained or calibrated, then converted.

    Raises:
        NothingToQuantizeError: If no supported layer was found.
        ConfigError: If an override matches no site, no layer takes the prompts that are asked for,
            or an argument is of another type.
        UnsupportedLayerError: If ``model`` cannot be copied.

    Example:
        >>> prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4))
    """
    _check_arguments(model, config)
    given = unwrap(model)
    model = given if inplace else copy_module(given)
    _to_float32(model)
    # Functions are not copied: what they keep is of the model that was given.
    twins = dict(zip(given.modules(), model.modules(), strict=True))
    unwrap_children(model)
    place = RecordedPlacement(config, model)
    new_of: dict[nn.Module, nn.Module] = {}
    with _device_of(model):
        root = _swap(model, "", place, new_of)
    swapped = {old: new for old, new in new_of.items() if new is not old}
    if not swapped:
        raise NothingToQuantizeError(_nothing(model, place.left))
    place.check_overrides(config.overrides)
    if config.prompts:
        check_prompts(root)
    _redirect(root, twins, swapped)
    avoid_fast_paths(root)
    for path, module in root.named_modules():
        if isinstance(module, Quantizer):
            module.site_name = path
    root.__dict__[_METHOD] = config
    return root


def method_of(model: nn.Module) -> QuantConfig | None:
    """The configuration that a model, or what it holds, was prepared with; None of a float one.

    Raises:
        ConfigError: If parts were prepared with different ones, and one has hooks of its own.
    """
    found: list[QuantConfig] = []
    for module in model.modules():
        config = module.__dict__.get(_METHOD)
        if config is not None and config not in found:
            found.append(config)
    if len(found) < 2:
        return found[0] if found else None
    hooks = ("penalty", "advance", "admissible", "parameter_groups")
    for config in found:
        if any(getattr(type(config), name) is not getattr(QuantConfig, name) for name in hooks):
            raise ConfigError(
                f"parts of the model were prepared with {len(found)} configurations, and "
                f"{type(config).__name__} takes part in training: pass the one to train by (method)"
            )
    return None


def forget_method(model: nn.Module) -> None:
    """Of a model that is trained no more."""
    for module in model.modules():
        module.__dict__.pop(_METHOD, None)


def _to_float32(model: nn.Module) -> None:
    """Casts a model of another type, since quantized layers compute in float32; says so."""
    other = [
        (name, tensor.dtype)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if not is_lazy(tensor) and tensor.is_floating_point() and tensor.dtype != torch.float32
    ]
    if other:
        name, dtype = other[0]
        warnings.warn(
            f"{name} is {dtype} ({len(other)} parameters and buffers are not float32): the model "
            "is cast to float32, in which quantized layers compute",
            UnsupportedLayerWarning,
            stacklevel=3,
        )
        model.float()


def _check_arguments(model: object, config: object) -> None:
    if not isinstance(model, nn.Module):
        raise ConfigError(f"the model to prepare is a {type(model).__name__}: pass a torch module")
    if not isinstance(config, QuantConfig):
        what = config.__name__ if isinstance(config, type) else f"{config!r}"
        raise ConfigError(
            f"the configuration to prepare with is {what}: pass an object such as "
            "nodebits.UniformConfig(bits=8)"
        )


def _nothing(model: nn.Module, left: list[str]) -> str:
    if left:
        return (
            f"{type(model).__name__} has no layer that can be quantized as it is: {left[-1]}"
            f"{f' ({len(left) - 1} more)' if len(left) > 1 else ''}"
        )
    if any(isinstance(module, QuantLayer) for module in model.modules()):
        return f"{type(model).__name__} is prepared already: prepare the float model"
    return (
        f"{type(model).__name__} has no layer that can be quantized. Supported: "
        f"{', '.join(supported_layers())}"
    )


_DESCENDING: tuple[type[nn.Module], ...] = (EquilibriumAggregation,)


def _swap(
    module: nn.Module, path: str, place: RecordedPlacement, new_of: dict[nn.Module, nn.Module]
) -> nn.Module:
    """The successor of ``module``, children first; ``module`` itself where it stays."""
    if type(module) in _DESCENDING:
        why = "its forward descends gradients of its layers, and codes have none"
        place.left.append(_warn(path, module, why))
        return module
    if isinstance(module, nn.MultiheadAttention):
        reason = obstacle(module) if layer_for(module) is not None else _unsupported(module)
        if reason is not None:  # it reads the weights of its layers, which stay what they are
            place.left.append(_warn(path, module, reason))
            return module
    replaced = replaced_method(module) if _class_for(module) is not None else None
    if replaced is not None:
        # What a function keeps of the float layer, it runs with the linears of that.
        place.left.append(_warn(path, module, replaced))
        return module
    cls = _class_for(module)
    if place.config.prompts and cls is not None and obstacle(module, cls) is None:
        add_prompt(module, cls, path, place.config)
    if cls is not None:
        place.will_sum(module, cls)
    # named_children would give a module that two attributes share only once.
    for name, child in list(module._modules.items()):
        if child is None:
            continue
        if child not in new_of:
            child_path = f"{path}.{name}" if path else name
            is_prompt = isinstance(child, AggregationPrompt)
            floats = cls is not None and (cls.has_messages or cls.maps_floats)
            with place.inside(floats), place.of_prompt(is_prompt):
                new_of[child] = _swap(child, child_path, place, new_of)
        if new_of[child] is not child:
            module._modules[name] = new_of[child]
    cls = _class_for(module)
    if cls is None:
        swap_evaluation(module)
        reason = _unsupported(module)
    else:
        reason = cls.unsupported(module) or obstacle(module, cls)
    if reason is not None:
        place.left.append(_warn(path, module, reason))
    if cls is None or reason is not None:
        return module
    with _device_of(module), place.of(module):
        layer = cls.from_float(module, path, place)
    layer.layer_name = path
    layer.protection = place.config.protection()
    new_of[module] = layer
    return layer


def _device_of(module: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Makes new state where a module has its own, if it has any."""
    own = next(itertools.chain(module.parameters(), module.buffers()), None)
    return contextlib.nullcontext() if own is None else own.device


def _class_for(module: nn.Module) -> type[QuantLayer] | None:
    """The form of a layer: one for its own type where that fits, else one for its base."""
    own, general = layer_for(module), general_layer_for(module)
    if general is None or (own is not None and _fits(own, module)):
        return own
    # Its own form knows best why a layer stays that no form fits.
    return general if _fits(general, module) or own is None else own


def _fits(cls: type[QuantLayer], module: nn.Module) -> bool:
    return cls.unsupported(module) is None and obstacle(module, cls) is None


def _unsupported(module: nn.Module) -> str | None:
    """What to say of a module that is of no supported type; None for what needs no word."""
    if isinstance(module, QuantLayer):
        return None
    base = derived_from(module)
    if base is not None and parametrized_names(module):
        return obstacle(module)
    if base is not None:
        return lazy_reason(module) or (
            f"a subclass of {base.__name__} may compute otherwise: where it does not, use "
            f"{base.__name__} itself"
        )
    return None


def _redirect(
    root: nn.Module, twins: dict[nn.Module, nn.Module], swapped: dict[nn.Module, nn.Module]
) -> None:
    """Points the model's own references at its new layers; warns of those out of reach.

    Args:
        root: The model with the new layers.
        twins: Modules of the model that was given, and their copies.
        swapped: Layers and their successors.
    """
    inside = {*root.modules(), *swapped}

    def found(where: str, what: nn.Module | types.FunctionType) -> None:
        if isinstance(what, types.FunctionType):
            for kept in captured_modules(what):
                twin = twins.get(kept, kept)
                if twin in swapped or (twin in inside and _has_layers(twin)):
                    warnings.warn(
                        f"the function {where!r} keeps a {type(kept).__name__} of the float model: "
                        "what it runs of that stays in float. Let it look the layer up",
                        UnsupportedLayerWarning,
                        stacklevel=6,
                    )
        elif what not in inside and _has_float_layers(what) and root not in what.modules():
            reason = "torch does not see what is in a plain list or attribute: use nn.ModuleList"
            _warn(where, what, reason)

    References(swapped, found).redirect(root)


def _has_float_layers(module: nn.Module) -> bool:
    return any(layer_for(child) is not None for child in module.modules())


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(child, QuantLayer) for child in module.modules())


def _warn(path: str, module: nn.Module, reason: str) -> str:
    text = f"layer {path or 'model'!r} ({type(module).__name__}) stays in float: {reason}"
    warnings.warn(
        f"{text}. Supported: {', '.join(supported_layers())}",
        UnsupportedLayerWarning,
        stacklevel=4,
    )
    return text
