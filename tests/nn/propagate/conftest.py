"""Tiles so small that graphs of tests have many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from nodebits.nn.propagate import tiles

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_VALUES", 64)
    monkeypatch.setattr(tiles, "_LEAST_EDGES", 7)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, small_tiles: None) -> list[Any]:
    """The tiles that ran."""
    ran: list[Any] = []
    of = tiles.Tiled.of

    def counting(self: tiles.Tiled, tile: tiles.Tile) -> dict[str, Any]:
        ran.append(tile)
        return of(self, tile)

    monkeypatch.setattr(tiles.Tiled, "of", counting)
    return ran
