"""``nodebits methods``: what ``--method`` may be."""

from __future__ import annotations

from nodebits.cli import options
from nodebits.core.registry import METHODS


def methods(json: options.Json = False, debug: options.Debug = False) -> None:
    """List the quantization methods, other packages' too, with a line each."""
    from nodebits.cli.listing import print_listing

    print_listing("method", {entry.name: entry.summary for entry in METHODS.list()}, json)
