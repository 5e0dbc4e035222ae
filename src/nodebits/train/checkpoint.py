"""Resumable state of a run, in the safe form of :mod:`nodebits.runtime.container`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import Options, Text, check_fields
from nodebits.runtime import container
from nodebits.train.state_tree import from_tree, to_tree

_FIELDS: Options = {"fingerprint": Text()}


def save_checkpoint(path: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Writes ``state`` so that ``path`` is never torn.

    Args:
        path: File to write.
        fingerprint: Of the run.
        state: Tensors, numbers, strings, and lists, tuples and dictionaries of them.

    Raises:
        ConfigError: If ``state`` holds anything else.
        OutputError: If the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    contents = {"fingerprint": fingerprint, "state": to_tree(state, tensors)}
    container.write(path, container.CHECKPOINT, contents, tensors)


def load_checkpoint(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """Reads the state of the run with this fingerprint.

    Returns:
        The state; ``None`` when there is no file, or with a warning when it is damaged or belongs
        to a run with other settings, which is then started anew.
    """
    if not path.exists():
        return None
    try:
        header, tensors = container.read(path, container.CHECKPOINT)
        check_fields(header, _FIELDS, "header", others=True)
        state = from_tree(header.get("state"), tensors)
    except FileFormatError as error:
        warnings.warn(
            f"checkpoint {path} cannot be read ({error}); training starts anew", stacklevel=2
        )
        return None
    if header["fingerprint"] != fingerprint or not isinstance(state, dict):
        warnings.warn(
            f"checkpoint {path} belongs to a run with other settings; training starts anew",
            stacklevel=2,
        )
        return None
    return state
