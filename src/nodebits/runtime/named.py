"""A packed model's forward with the names that its module has for the arguments."""

from __future__ import annotations

import inspect
import weakref
from types import CodeType
from typing import Any

from torch import nn

from nodebits.core.errors import ConfigError


class Forward:
    """Calls a packed model; its signature is that of the module.

    The model holds it and is not held by it: a circle would keep the weights until Python's
    collector comes by, which counts objects and not their bytes.

    Args:
        model: The packed model.
        module: Its module.
    """

    def __init__(self, model: Any, module: nn.Module) -> None:
        self._of = weakref.ref(model)
        try:
            self.__signature__ = inspect.signature(module.forward)
        except (TypeError, ValueError):  # of a compiled function
            self.__signature__ = inspect.signature(model._forward)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are of the copy of the model."""
        model = self._model()
        return type(self), (model, model.module)

    @property
    def __code__(self) -> CodeType:
        """Where ``torch.export`` says that a program comes from."""
        code: CodeType = type(self._model())._forward.__code__
        return code

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """What the model returns.

        Raises:
            ConfigError: If the model is gone.
        """
        return self._model()._forward(*args, **keywords)

    def _model(self) -> Any:
        model = self._of()
        if model is None:
            raise ConfigError("the packed model of this forward is gone: keep the model, call it")
        return model
