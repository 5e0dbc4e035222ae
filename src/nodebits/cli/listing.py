"""Names and what they stand for, in two columns; nothing here imports torch."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def print_listing(kind: str, entries: Mapping[str, str], json: bool) -> None:
    """Prints what is known by name.

    Args:
        kind: Head of the column of names.
        entries: A line each, by name.
        json: Print an object instead of a table.
    """
    if json:
        print(json_module.dumps(dict(entries), indent=2))
        return
    table = Table(kind, "", box=SIMPLE_HEAD)
    for name, summary in entries.items():
        table.add_row(name, summary)
    Console().print(table)
