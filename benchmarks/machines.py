"""Rows of results by the machine that they were measured on: no table mixes two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def machine_of(row: dict[str, Any]) -> str:
    """Processor, instruction set and threads, as far as a row tells them."""
    where = row["environment"]
    threads = row.get("threads", where["threads"])
    told = [where["processor"], where.get("isa"), f"{threads} thread{'s' * (threads != 1)}"]
    return ", ".join(one for one in told if one)


def by_machine(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each machine, in the order in which these first came."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(machine_of(row), []).append(row)
    return found


def renewed(rows: Iterable[dict[str, Any]], names: Iterable[str]) -> list[dict[str, Any]]:
    """Without rows that were measured again later, on the same machine.

    Args:
        rows: In the order in which they were measured.
        names: Of what tells a row from others.
    """
    names = tuple(names)
    last = {(machine_of(row), *(row.get(name) for name in names)): row for row in rows}
    return list(last.values())
