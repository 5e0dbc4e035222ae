"""The file of tiles that were measured: by card, written by the tuner, read once in a process.

``tiles.json`` in the cache folder::

    {"nodebits tiles": 1, "cards": {"NAME, capability 9.0, triton 3.7.1": [
        {"kernel": "multiply", "shape": [4, 4, 1024, 128, 128],
         "sizes": {"ROWS": 64, "COLS": 64, "DEPTH": 64, "num_warps": 8}, "ms": 0.1, "rule_ms": 0.2}
    ]}}

Sizes are read only where they are among those that the tuner tries: others could be wrong.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nodebits.core.cache import cache_folder
from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import Integer as Whole
from nodebits.core.file_fields import ListOf, Number, Object, Text, check_fields, check_object
from nodebits.core.files import write_atomically, writing
from nodebits.core.strict_json import read_json
from nodebits.ops.backends.triton.tiles import FAMILIES, Key, Sizes, candidates, key_of

FORMAT, VERSION = "nodebits tiles", 1
COMMAND = "nodebits tune --device cuda"


class Choice(NamedTuple):
    """What was measured for a kernel and a shape.

    Attributes:
        key: Of the choice.
        sizes: The fastest.
        ms: Milliseconds of the call with them.
        rule_ms: With the rule's.
    """

    key: Key
    sizes: Sizes
    ms: float
    rule_ms: float


def tiles_file(cache: str | Path | None = None) -> Path:
    """Where the file is, see :func:`nodebits.core.cache.cache_folder`."""
    return cache_folder(cache) / "tiles.json"


def card() -> str:
    """What the choices of this process' device are kept under."""
    major, minor = torch.cuda.get_device_capability()
    version = metadata.version("triton")
    return f"{torch.cuda.get_device_name()}, capability {major}.{minor}, triton {version}"


def serving_choices() -> dict[Key, Sizes]:
    """What was measured on this card; nothing, after a warning, where the file is of no use."""
    if not torch.cuda.is_available():
        return {}
    path = tiles_file()
    try:
        found = read(path)
    except FileNotFoundError:
        return {}
    except (FileFormatError, OSError) as error:
        _warn(f"{error}: delete it, or write it anew with {COMMAND!r}")
        return {}
    own = card()
    if own not in found:
        others = "; ".join(found) or "no card"
        _warn(f"{path} is of {others}, and not of {own}: {COMMAND!r} measures this card")
        return {}
    return {one.key: one.sizes for one in found[own]}


def _warn(why: str) -> None:
    warnings.warn(f"tiles of kernels follow the rules, since {why}", stacklevel=2)


def read(path: Path) -> dict[str, list[Choice]]:
    """The choices by card.

    Raises:
        FileNotFoundError: If there is no file.
        FileFormatError: If it is foreign or damaged, or of another version; says where.
    """
    head = check_object(read_json(path, "a file of tiles"), str(path))
    if head.get(FORMAT) != VERSION:
        raise FileFormatError(
            f"{path}: {FORMAT!r} is {head.get(FORMAT)!r}, this version reads {VERSION}"
        )
    found: dict[str, list[Choice]] = {}
    for name, entries in check_object(head.get("cards"), f"{path}: cards").items():
        where = f"{path}: cards.{name}"
        if not isinstance(entries, list):
            raise FileFormatError(f"{where} is no list")
        found[name] = [_choice(one, f"{where}[{i}]") for i, one in enumerate(entries)]
    return found


def _choice(entry: Any, where: str) -> Choice:
    check_fields(
        entry,
        {
            "kernel": Text(),
            "shape": ListOf(Whole()),
            "sizes": Object(),
            "ms": Number(),
            "rule_ms": Number(),
        },
        where,
    )
    family, shape = FAMILIES.get(entry["kernel"]), tuple(entry["shape"])
    if family is None or len(shape) != len(family.shape):
        raise FileFormatError(f"{where} is of no kernel of this version")
    key = Key(entry["kernel"], shape)
    bits = [n for name, n in zip(family.shape, shape, strict=True) if name.endswith("bits")]
    if any(not 1 <= n <= 8 for n in bits) or key_of(*key) != key:
        raise FileFormatError(f"{where}.shape is {list(shape)}: no shape that choices are kept for")
    if entry["sizes"] not in candidates(key):
        raise FileFormatError(f"{where}.sizes are none that this version tries")
    return Choice(key, entry["sizes"], float(entry["ms"]), float(entry["rule_ms"]))


def write(path: Path, name: str, choices: Iterable[Choice]) -> None:
    """Adds the choices for a card, in place of older ones for the same; atomically.

    Args:
        path: The file; a damaged one is replaced.
        name: The card.
        choices: What was measured.

    Raises:
        OutputError: If it cannot be written.
    """
    with writing(path):
        try:
            found = read(path)
        except (FileNotFoundError, FileFormatError):
            found = {}
        kept = {one.key: one for one in found.get(name, [])}
        kept.update({one.key: one for one in choices})
        cards = {
            of: [
                {"kernel": one.key.kernel, "shape": one.key.shape, "sizes": one.sizes,
                 "ms": one.ms, "rule_ms": one.rule_ms}
                for one in entries
            ]
            for of, entries in {**found, name: sorted(kept.values())}.items()
        }  # fmt: skip
        document = {FORMAT: VERSION, "cards": cards}
        write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
