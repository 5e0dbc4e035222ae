"""The table of ``forms.py``, of the lines that it wrote."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from forms import COLUMNS, LAYERS, NODES_OF, TYPES, WIDTHS
from propagate import machine, mean

# What the layers are to reach: times as fast by width, and share of memory.
GOALS, SHARE = {8: 2.5, 4: 4.0}, 0.25
TITLE = """# The field's layers on integers

Made by `python benchmarks/forms.py --table`; its text says what was measured, and how.

"""


def tables(lines: list[dict[str, Any]]) -> str:
    """In Markdown, one for each kind of machine."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(machine(line), []).append(line)
    parts = [f"## {kind}\n\n{table(of_kind)}" for kind, of_kind in by_kind.items()]
    return TITLE + "\n".join(parts)


def table(lines: list[dict[str, Any]]) -> str:
    """Of one kind of machine, a row per layer."""
    by_layer: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        by_layer.setdefault(str(line["layer"]), {})[int(line["bits"])] = line
    rows = [
        "| layer | runs | plan | PyG, s | form | MiB | compiled, s "
        "| 8 bits, s | times as fast | as compiled | memory | error "
        "| 4 bits, s | times as fast | as compiled | memory | error |",
        "|---" * 17 + "|",
    ]
    for name in (name for name in LAYERS if name in by_layer):
        one = by_layer[name]
        first = next(iter(one.values()))
        cells = [name, first["runs"], "yes" if first["plan"] else "in parts"]
        cells += [f"{min(line['float_s'] for line in one.values()):.3f}", first["float_form"]]
        fast = min((line.get("compiled_s", math.inf) for line in one.values()), default=math.inf)
        cells += [f"{first['float_mib']:.0f}", f"{fast:.3f}" if fast < math.inf else ""]
        for bits in WIDTHS:
            line = one.get(bits)
            cells += _cells(line) if line is not None else [""] * 5
        rows.append("| " + " | ".join(cells) + " |")
    told = []
    for bits in WIDTHS:
        some = [one for one in lines if one["bits"] == bits]
        part = [one for one in some if not _is_typed(one)]
        if not part:
            continue
        seconds_of = part[0].get("clock", "wall")
        slower = [str(one["layer"]) for one in part if one["ratio"] < 1]
        missed = [str(one["layer"]) for one in part if one["ratio"] < GOALS[bits]]
        heavy = [str(one["layer"]) for one in part if _share(one) > SHARE]
        bound = [str(one["layer"]) for one in part if _result_share(one) > SHARE]
        told.append(
            f"At {bits} bits {mean([one['ratio'] for one in part]):.1f} times as fast in the "
            f"geometric mean.\nSlower than PyG: {', '.join(slower) or 'none'}.\n"
            f"Below {GOALS[bits]}: {', '.join(missed) or 'none'}.\n"
            f"More than {SHARE} of the memory:\n"
            f"{textwrap.fill(', '.join(heavy) or 'none', 98)}.\n"
            "Of these the float result alone is more in:\n"
            f"{textwrap.fill(', '.join(bound) or 'none', 98)}.\n"
            f"Seconds are by the clock: {seconds_of}."
        )
        told += _told_of_compiled(bits, part)
        told += _told_of_types(bits, [one for one in some if _is_typed(one)])
    return "\n".join(rows) + "\n\n" + "\n\n".join(told) + "\n"


def _told_of_compiled(bits: int, lines: list[dict[str, Any]]) -> list[str]:
    """What is said of a width beside compiled layers; nothing where none was measured."""
    ratios = {str(one["layer"]): one["compiled_ratio"] for one in lines if "compiled_ratio" in one}
    if not ratios:
        return []
    slower = [layer for layer, ratio in ratios.items() if ratio < 1]
    missed = [layer for layer, ratio in ratios.items() if ratio < GOALS[bits]]
    return [
        f"Beside the compiled layer, of {len(ratios)} layers, at {bits} bits "
        f"{mean(list(ratios.values())):.1f} times as fast.\n"
        f"Slower than it: {', '.join(slower) or 'none'}.\n"
        f"Below {GOALS[bits]} of it:\n{textwrap.fill(', '.join(missed) or 'none', 98)}."
    ]


def _is_typed(line: dict[str, Any]) -> bool:
    return str(line["layer"]).endswith(TYPES)


def _told_of_types(bits: int, lines: list[dict[str, Any]]) -> list[str]:
    """What is said of layers on edges of few types; nothing where none was measured."""
    if not lines:
        return []
    said = []
    for what, key in (("PyG", "ratio"), ("the compiled layer", "compiled_ratio")):
        ratios = {str(one["layer"]): float(one[key]) for one in lines if key in one}
        if not ratios:
            continue
        least = min(ratios, key=ratios.__getitem__)
        said.append(
            f"beside {what} {mean(list(ratios.values())):.1f} times as fast, least "
            f"{ratios[least]:.1f} of {least.removesuffix(TYPES)}"
        )
    return [
        f"On edges of few types, {len(lines)} layers at {bits} bits:\n" + ";\n".join(said) + "."
    ]


def _share(line: dict[str, Any]) -> float:
    return float(line["packed_mib"]) / max(float(line["float_mib"]), 0.1)


def _result_share(line: dict[str, Any]) -> float:
    """What no form can take less than: a layer's result is floats in either form."""
    return (
        NODES_OF[line.get("graph", "")]
        * int(line.get("columns", COLUMNS))
        * 4
        / 2**20
        / max(float(line["float_mib"]), 0.1)
    )


def _cells(line: dict[str, Any]) -> list[str]:
    return [
        f"{line['packed_s']:.3f}",
        f"{line['ratio']:.1f}",
        f"{line['compiled_ratio']:.1f}" if "compiled_ratio" in line else "",
        f"{_share(line):.2f}",
        f"{100 * line['error']:.1f} %",
    ]
