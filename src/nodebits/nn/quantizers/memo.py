"""Codes of constant inputs, remembered: raw features are quantized once, not once per epoch."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from nodebits.core.affine import Codes


class CodesMemo:
    """Remembers the codes of the last tensor that carries no gradient.

    A tensor counts as the same while it is the same object and was not written to. ``state`` is whatever else the codes depend on.
    """

    def __init__(self) -> None:
        self._entry: tuple[Any, int, Any, Codes] | None = None

    def recall(self, x: Tensor, state: Any = None) -> Codes | None:
        """The codes of ``x``, if they are remembered."""
        entry = self._entry
        if entry is None or x.is_inference() or entry[0]() is not x:
            return None
        return entry[3] if entry[1] == x._version and entry[2] == state else None

    def remember(self, x: Tensor, codes: Codes, state: Any = None) -> None:
        """Keeps the codes of ``x`` if neither carries a gradient."""
        if x.requires_grad or x.is_inference() or codes.codes.requires_grad:
            return
        self._entry = (weakref.ref(x), x._version, state, codes)

    def forget(self) -> None:
        """Drops what is remembered."""
        self._entry = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_entry": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> CodesMemo:
        return CodesMemo()
