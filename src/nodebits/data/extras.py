"""Imports of the optional ``data`` dependencies."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str) -> Any:
    """Imports ``module``, or says how to install it.

    Raises:
        ImportError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"named data sets need {module.partition('.')[0]}, which is not installed: "
            "pip install 'nodebits[data]'"
        ) from error
