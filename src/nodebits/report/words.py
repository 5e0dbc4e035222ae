"""Sizes, counts and names as reports word them, on a page and on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_title(model: Mapping[str, Any]) -> str:
    """Returns a model's name as a title has it; an import path of the user's own as it is."""
    name = str(model["name"])
    return name if ":" in name else name.upper()


def model_sizes(model: Mapping[str, Any]) -> str:
    """Returns what is to be said of a model's size."""
    if "num_layers" in model:
        return f"{model['num_layers']} layers, hidden width {model['hidden_channels']}"
    return ", ".join(f"{name} {value}" for name, value in model["arguments"].items())


# Cores in use by others from which on a time is not worth keeping.
_BUSY = 0.2


def busy_words(other_load: float | None) -> str:
    """Returns what times are worth beside other programs; nothing where it was quiet or unknown.

    Args:
        other_load: Cores that other programs used meanwhile.
    """
    if other_load is None or other_load <= _BUSY:
        return ""
    return (
        f"other programs kept {other_load:.1f} cores busy meanwhile: repeat this on a quiet machine"
    )


def human_bytes(count: float) -> str:
    """Returns a size with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def figure(value: float, metric: Mapping[str, Any], digits: int = 2) -> str:
    """Returns a figure of a report's metric: a share in percent, without the sign."""
    return f"{100 * value:.{digits}f}" if metric["share"] else f"{value:.{digits + 2}g}"


def spread_of(values: Mapping[str, Any], metric: Mapping[str, Any], digits: int = 2) -> str:
    """Returns mean and standard deviation, the mean alone where there is one value."""
    mean = figure(values["mean"], metric, digits)
    if len(values.get("values", (0, 0))) == 1:
        return mean
    return f"{mean} ± {figure(values['std'], metric, digits)}"


def heading(metric: Mapping[str, Any]) -> str:
    """Returns the head of a column of a metric."""
    return f"{metric['title']} %" if metric["share"] else str(metric["title"])


def title_of(metric: Mapping[str, Any]) -> str:
    """Returns a metric's name at the head of a line."""
    return str(metric["title"])[:1].upper() + str(metric["title"])[1:]


def drop_unit(metric: Mapping[str, Any]) -> str:
    """Returns what a drop of a metric is counted in."""
    return "points" if metric["share"] else "percent"


def percent_sign(metric: Mapping[str, Any]) -> str:
    """Returns what stands behind a figure in a sentence."""
    return "%" if metric["share"] else ""


def count_of(number: int, noun: str) -> str:
    """Returns ``1 run``, ``2 runs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def float_layer_list(layers: Mapping[str, str]) -> str:
    """Returns the layers that stayed in float as one phrase."""
    return ", ".join(f"{path or 'model'} ({name})" for path, name in layers.items()) or "none"


def letter(index: int) -> str:
    """Returns what one of several machines is called in a column: A, B, ..."""
    return chr(ord("A") + index % 26)
