"""The module inside wrappers, and copies of modules that ``copy.deepcopy`` refuses."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nodebits.core.errors import UnsupportedLayerError

_PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside ``torch.compile``, data parallelism or an ``AveragedModel``.

    Inside those its layers have paths that the model alone does not know.
    """
    # The class of a compiled module is known by what it holds: importing it takes a second.
    if "_orig_mod" in module._modules:
        return unwrap(module.get_submodule("_orig_mod"))
    if isinstance(module, _PARALLEL):
        return unwrap(module.get_submodule("module"))
    return module


def unwrap_children(root: nn.Module) -> None:
    """:func:`unwrap` for all submodules, in place."""
    for module in list(root.modules()):
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = unwrap(child)


def copy_module(module: nn.Module, shared: Mapping[int, Any] | None = None) -> nn.Module:
    """A deep copy. Results kept from a forward are detached; locks and the like are shared.

    Args:
        module: What to copy.
        shared: Objects by their ids that the copy shares; None for no others.

    Raises:
        UnsupportedLayerError: If an attribute cannot be copied at all; the message names it.
    """
    memo = dict(shared or {})
    kept: list[Any] = []  # objects whose ids are keys must live until the copy is made
    for value in _attributes(module):
        _detach(value, memo, kept)
    try:
        return _own_forwards(module, copy.deepcopy(module, dict(memo)))
    except Exception as error:
        cause = error
    modules = {id(child): child for child in module.modules()}
    for value in _attributes(module):
        _share(value, memo, modules)
    try:
        return _own_forwards(module, copy.deepcopy(module, memo))
    except Exception as error:
        raise UnsupportedLayerError(
            f"{type(module).__name__} cannot be copied ({type(cause).__name__}: {cause}): take "
            "out of it what cannot be copied, or pass inplace=True to nodebits.prepare"
        ) from error


def _own_forwards(module: nn.Module, copied: nn.Module) -> nn.Module:
    """Gives copies the ``forward`` of the instance that they were made from.

    PyG's ``Sequential`` writes its copies a new one under a random name, and takes what has that
    name: after ``random.seed`` that may be the forward of another model.
    """
    copies = dict(copied.named_modules())
    for path, source in module.named_modules():
        target, forward = copies.get(path), vars(source).get("forward")
        if target is not None and isinstance(forward, MethodType) and forward.__self__ is source:
            target.forward = MethodType(forward.__func__, target)
    return copied


def _attributes(module: nn.Module) -> Iterator[Any]:
    """Plain attributes of all submodules."""
    for child in module.modules():
        for name, value in vars(child).items():
            if name != "_modules":
                yield value


def _detach(value: Any, memo: dict[int, Any], kept: list[Any], depth: int = 3) -> None:
    """Notes copies of tensors that hang on a graph of gradients: deepcopy refuses those."""
    if isinstance(value, Tensor):
        if value.grad_fn is not None and id(value) not in memo:
            memo[id(value)] = value.detach().clone()
            kept.append(value)
    elif depth and isinstance(value, dict | list | tuple | set):
        for item in value.values() if isinstance(value, dict) else value:
            _detach(item, memo, kept, depth - 1)


def _share(value: Any, memo: dict[int, Any], modules: dict[int, Any]) -> None:
    """Notes what deepcopy refuses as its own copy: a lock, a file, a thread."""
    if id(value) in memo or isinstance(value, nn.Module):
        return
    try:
        copy.deepcopy(value, {**memo, **modules})
    except Exception:
        if isinstance(value, dict | list | tuple | set):
            for item in value.values() if isinstance(value, dict) else value:
                _share(item, memo, modules)
        else:
            memo[id(value)] = value
