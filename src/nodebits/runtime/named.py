"""A packed model's forward with the names that its module has for the arguments."""

from __future__ import annotations

import inspect
from types import CodeType
from typing import Any

from torch import nn


class Forward:
    """Calls a packed model; its signature is that of the module.

    Args:
        model: The packed model.
        module: Its module.
    """

    def __init__(self, model: Any, module: nn.Module) -> None:
        self._model = model
        try:
            self.__signature__ = inspect.signature(module.forward)
        except (TypeError, ValueError):  # of a compiled function
            self.__signature__ = inspect.signature(model._forward)

    @property
    def __code__(self) -> CodeType:
        """Where ``torch.export`` says that a program comes from."""
        code: CodeType = type(self._model)._forward.__code__
        return code

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """What the model returns."""
        return self._model._forward(*args, **keywords)
