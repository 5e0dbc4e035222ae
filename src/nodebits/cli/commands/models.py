"""``nodebits models``: what ``--model`` may be."""

from __future__ import annotations

from nodebits.cli import options
from nodebits.core.registry import MODELS


def models(json: options.Json = False, debug: options.Debug = False) -> None:
    """List the named models, other packages' too, with a line each."""
    from nodebits.cli.listing import print_listing

    print_listing("model", {entry.name: entry.summary for entry in MODELS.list()}, json)
