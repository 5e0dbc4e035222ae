"""``nodebits tasks``: what ``--task`` may be."""

from __future__ import annotations

from nodebits.cli import options
from nodebits.core.registry import TASKS


def tasks(json: options.Json = False, debug: options.Debug = False) -> None:
    """List the tasks, other packages' too, with a line each."""
    from nodebits.cli.listing import print_listing

    print_listing("task", {entry.name: entry.summary for entry in TASKS.list()}, json)
