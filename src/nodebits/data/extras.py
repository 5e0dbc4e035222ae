"""Imports of the optional ``data`` dependencies."""

from __future__ import annotations

import importlib
from typing import Any

from nodebits.core.errors import MissingExtraError


def require(module: str, extra: str = "data", what: str = "these data need") -> Any:
    """Imports ``module``, or says how to install it.

    Args:
        module: Its name.
        extra: Of nodebits, that brings it.
        what: Who needs it, for the message.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{what} {module.partition('.')[0]}, which is not installed: "
            f"pip install 'nodebits[{extra}]'"
        ) from error
