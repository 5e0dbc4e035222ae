"""Resumable state of a run, written atomically and read without unpickling objects."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from nodebits.core.files import write_atomically

_VERSION = 1


def save_checkpoint(path: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Writes ``state`` (tensors, numbers, strings, lists, dicts) so that ``path`` is never torn."""
    buffer = io.BytesIO()
    torch.save({"version": _VERSION, "fingerprint": fingerprint, "state": state}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """Reads the state of the run with this fingerprint.

    Returns:
        The state; ``None`` when there is no file, or with a warning when it is damaged or belongs
        to a run with other settings, which is then started anew.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, found, state = content["version"], content["fingerprint"], content["state"]
    except (
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        warnings.warn(
            f"checkpoint {path} cannot be read ({type(error).__name__}); training starts anew",
            stacklevel=2,
        )
        return None
    if version != _VERSION or found != fingerprint:
        warnings.warn(
            f"checkpoint {path} belongs to a run with other settings; training starts anew",
            stacklevel=2,
        )
        return None
    return dict(state)
