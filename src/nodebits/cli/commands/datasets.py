"""``nodebits datasets``: what ``--dataset`` may be."""

from __future__ import annotations

from nodebits.cli import options
from nodebits.core.registry import SOURCES


def datasets(json: options.Json = False, debug: options.Debug = False) -> None:
    """List the data sets and the forms of own data, other packages' too, with a line each."""
    from nodebits.cli.listing import print_listing

    entries: dict[str, str] = {}
    for kind in SOURCES.names():
        entries |= SOURCES.get(kind)().names()
    print_listing("data set", entries, json)
