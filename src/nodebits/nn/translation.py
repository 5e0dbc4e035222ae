"""Tools that translate a model by recording one forward: refused, by name."""

from __future__ import annotations

import torch

from nodebits.core.errors import UnsupportedLayerError


def not_portable(tool: str, what: str) -> UnsupportedLayerError:
    """The error of a tool that translates a model: it would bake the example's graph in."""
    return UnsupportedLayerError(
        f"{tool} cannot translate {what}: it reads the values of the graph, which differ from call "
        "to call. Use torch.compile or torch.export, or save the model: nodebits.lite and the C "
        "interface (docs/deploy.md) run its file without torch; what must be translated is the "
        "float model"
    )


def refuse_translation(what: str) -> None:
    """Refuses to run under a tool that records a forward for good.

    Raises:
        UnsupportedLayerError: Under ``torch.export``, ``torch.onnx`` or ``torch.jit.trace``.
    """
    if torch.compiler.is_exporting():
        raise not_portable("torch.export", what)
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise not_portable("torch.jit.trace", what)
