"""The state of a run as JSON and tensors, and back: what a checkpoint holds, without pickle.

Numbers and strings stand for themselves, a tensor for its name; lists, tuples and dictionaries are
marked as such, since JSON knows neither tuples nor keys that are numbers.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.core.file_fields import shown

# A state has a handful of levels; each takes frames of Python's stack.
_MOST_LEVELS = 32
_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def to_tree(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON of a state.

    Args:
        value: Tensors, numbers, strings, None, and lists, tuples and dictionaries of them.
        tensors: Takes up the tensors, by the names that the JSON has for them.

    Raises:
        ConfigError: If ``value`` holds anything else; names its type.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(float(value))}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [to_tree(item, tensors) for item in value]}
    if isinstance(value, dict) and all(type(key) in (int, str) for key in value):
        return {"dict": [[key, to_tree(item, tensors)] for key, item in value.items()]}
    raise ConfigError(
        f"a {type(value).__name__} is in the state of the run: a checkpoint holds tensors, "
        "numbers, strings, and lists, tuples and dictionaries of them"
    )


def from_tree(tree: Any, tensors: dict[str, Tensor], level: int = 0) -> Any:
    """Inverse of :func:`to_tree`.

    Raises:
        FileFormatError: If ``tree`` is nothing that :func:`to_tree` makes.
    """
    if level > _MOST_LEVELS:
        raise FileFormatError(f"the state has more than {_MOST_LEVELS} levels")
    if not isinstance(tree, dict | list):
        return tree
    (kind, content), *more = tree.items() if isinstance(tree, dict) and tree else [("", None)]
    if not more and kind == "tensor" and isinstance(content, str) and content in tensors:
        return tensors[content]
    if not more and kind == "number" and isinstance(content, str) and content in _NUMBERS:
        return _NUMBERS[content]
    if not more and kind in ("list", "tuple") and isinstance(content, list):
        items = [from_tree(item, tensors, level + 1) for item in content]
        return items if kind == "list" else tuple(items)
    if not more and kind == "dict" and isinstance(content, list) and all(map(_is_pair, content)):
        made = {key: from_tree(item, tensors, level + 1) for key, item in content}
        if len(made) == len(content):
            return made
    raise FileFormatError(f"the state holds {shown(tree)}, which stands for nothing")


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and type(entry[0]) in (int, str)
