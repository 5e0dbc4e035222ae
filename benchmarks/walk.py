"""The walk of the features through one ``predict``: Python calls of nodebits, files, wraps.

    python benchmarks/walk.py

A two-layer GCN on the embedded data, packed at 4 bits, takes float features and a prepared graph.
Counted are frames of nodebits' own Python code in one warm call. A wrap is a class of nodebits
that was instantiated in it; how often each was is printed too.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch_geometric.nn import GCN

import nodebits

PACKAGE = str(Path(nodebits.__file__).resolve().parent)


class Walk(NamedTuple):
    """What one call did.

    Attributes:
        calls: Frames of nodebits by file and function.
        wraps: Instances of nodebits' classes by class.
    """

    calls: Counter[tuple[str, str]]
    wraps: Counter[str]


def walk(function: Callable[[], Any]) -> Walk:
    """Counts what ``function`` does inside nodebits, on this thread.

    Args:
        function: Called once.
    """
    calls: Counter[tuple[str, str]] = Counter()
    wraps: Counter[str] = Counter()

    def made(frame: FrameType) -> None:
        code = frame.f_code
        # The constructor of a named tuple is a lambda in a module of its own.
        named = frame.f_globals.get("__name__", "").startswith("namedtuple_")
        if not (named or code.co_name in ("__init__", "__new__")) or not code.co_varnames:
            return
        first = frame.f_locals.get(code.co_varnames[0])
        kind = first if isinstance(first, type) else type(first)
        if kind.__module__.startswith("nodebits"):
            wraps[kind.__qualname__] += 1

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        made(frame)
        path = frame.f_code.co_filename
        if path.startswith(PACKAGE):
            calls[path[len(PACKAGE) + 1 :], frame.f_code.co_qualname] += 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return Walk(calls, wraps)


def main() -> None:
    """Prints the walk, and the files and functions behind it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = nodebits.load_dataset("digits").data
    model = GCN(data.num_features, 64, 2, 10)
    config = nodebits.DegreeQuantConfig(bits=4)
    prepared = nodebits.prepare(model, config)
    nodebits.fit(prepared, data, nodebits.FitConfig(epochs=2))
    packed = nodebits.convert(prepared)
    graph = packed.prepare_graph(data.edge_index, data.num_nodes)
    for packed.use_plans in (False, True):
        for _ in range(70):  # the first calls, and few later ones, look at the use of codes
            packed.predict(data.x, graph)
        show(
            "a plan" if packed.use_plans else "the module",
            walk(lambda: packed.predict(data.x, graph)),
        )


def show(title: str, found: Walk) -> None:
    """Prints what one call did."""
    files = Counter[str]()
    for (path, _), count in found.calls.items():
        files[path] += count
    print(
        f"| run by | Python calls | files | wraps |\n|---|---|---|---|\n"
        f"| {title} | {found.calls.total()} | {len(files)} | {len(found.wraps)} |\n"
    )
    for name, counter in (("file", files), ("wrap", found.wraps)):
        print(f"| {name} | count |\n|---|---|")
        for entry, count in counter.most_common():
            print(f"| `{entry}` | {count} |")
        print()


if __name__ == "__main__":
    main()
