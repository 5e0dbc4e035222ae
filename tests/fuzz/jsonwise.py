"""Mutations of JSON: fields that are missing, of another type or size, swapped or given twice."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

# Stands for text that json.dumps does not write; see to_text.
_RAW = "@@raw-%d@@"
_RAW_TEXT = (
    "[" * 60 + "]" * 60,
    "[" * 990 + "]" * 990,
    '{"a":' * 500 + "1" + "}" * 500,
    "[" * 3000 + "]" * 3000,
    "9" * 5000,
    "-9" + "9" * 300,
    "1e999",
    "NaN",
    "-Infinity",
    "0.1e-400",
    '"\\ud800"',
    '"\\u0000"',
    "[" + "0," * 5000 + "0]",
    "{" + ",".join(f'"{i}":[]' for i in range(2000)) + "}",
    '{"a":1,"a":2}',
)
NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 8, 9, 16, 31, 32, 33, 127, 128, 255, 256, 65535, 65536, 10**6),
    *(2**31 - 1, 2**31, 2**32, 2**48, 2**53 + 1, 2**60, 2**63 - 1, 2**63, 2**64, 10**30),
    *(-2, -8, -(2**31), -(2**63), 0.0, -0.0, 0.5, 1.0, 1e-320, 1e-45, 1e30, 3.5e38, 1e308, -1e308),
)
WORDS = (
    *("", "x", "x" * 10_000, "é" * 50, "\0", "..", "../../x", "/", ".", "forward", "__class__"),
    *("weight", "scale", "bits", "kind", "nan", "None", "true", "float", "tensor", "list"),
    *("%s", "{}", "a.b.c", "convs.0", "training", "_modules", "state", "dict", "number", "tuple"),
)
OTHERS = (None, True, False, [], {}, [[]], [None], {"": None}, {"a": 1}, [0] * 9)


def random_value(r: random.Random) -> Any:
    """Any value that a field is not expected to have."""
    kind = r.random()
    if kind < 0.45:
        return r.choice(NUMBERS)
    if kind < 0.65:
        return r.choice(WORDS)
    if kind < 0.85:
        return copy.deepcopy(r.choice(OTHERS))
    return _RAW % r.randrange(len(_RAW_TEXT))


def pick(r: random.Random, tree: Any, stop: float = 0.12) -> tuple[Any, Any] | None:
    """A random place in a tree: what holds it, and its key there."""
    found = None
    while isinstance(tree, dict | list) and tree:
        key = r.choice(list(tree)) if isinstance(tree, dict) else r.randrange(len(tree))
        found = tree, key
        if r.random() < stop:
            break
        tree = tree[key]
    return found


def _nudged(r: random.Random, value: Any) -> Any:
    """A value like this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        far = value**3 if abs(value) < 1 << 256 else 0  # Python writes no more than 4,300 digits
        return r.choice((value + 1, value - 1, -value, value * 2, value // 2, far, 1.0))
    if isinstance(value, float):
        whole = int(value) if math.isfinite(value) else 0
        return r.choice((-value, value * 2, value * 1e30, value * 1e-30, whole))
    if isinstance(value, str):
        return r.choice((value + "x", value[:-1], value.upper(), value * 2, value[::-1], [value]))
    if isinstance(value, list):
        return r.choice((value[:-1], value + value, value[::-1], [value], value[:1] * 50))
    if isinstance(value, dict):
        return r.choice((list(value), list(value.values()), {**value, "more": 1}, [value]))
    return random_value(r)


def mutate_tree(r: random.Random, tree: Any) -> None:
    """One change of a non-empty tree, in place."""
    holder, key = pick(r, tree) or (tree, None)
    if key is None:
        return
    kind = r.random()
    if kind < 0.15:
        del holder[key]
    elif kind < 0.5:
        holder[key] = random_value(r)
    elif kind < 0.7:
        holder[key] = _nudged(r, holder[key])
    elif kind < 0.85:  # a value that is right elsewhere
        source, place = pick(r, tree) or (holder, key)
        holder[key] = copy.deepcopy(source[place])
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]) if r.random() < 0.5 else random_value(r))
    elif kind < 0.93:
        holder[r.choice((*WORDS, *holder))] = holder.pop(key)
    else:
        holder[r.choice(WORDS)] = random_value(r)


def to_text(r: random.Random, tree: Any) -> str:
    """JSON of a tree, with what no tree holds: raw text, and now and then a key given twice."""
    text = json.dumps(tree)
    if "@@raw-" in text:
        for number, raw in enumerate(_RAW_TEXT):
            text = text.replace(f'"{_RAW % number}"', raw).replace(_RAW % number, "raw")
    if r.random() < 0.02:
        at = text.find('"', r.randrange(len(text) + 1))
        end = text.find(", ", at)
        if 0 <= at < end and text[at:end].count('"') == 2:
            text = f"{text[: end + 2]}{text[at : end + 2]}{text[end + 2 :]}"
    return text


def mutate_json(r: random.Random, text: str) -> str:
    """One to three changes of a JSON text."""
    tree = json.loads(text)
    for _ in range(r.choice((1, 1, 2, 3))):
        mutate_tree(r, tree)
    return to_text(r, tree)
