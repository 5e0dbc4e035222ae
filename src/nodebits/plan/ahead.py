"""A plan whose features were packed ahead: the steps that pack them are left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodebits.engine.formats.dense import Dense
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import Place, RowQuantizer
from nodebits.plan.plan import Plan
from nodebits.plan.trace import leaves, mapped


@dataclass(frozen=True)
class Ahead:
    """A plan that takes packed rows in place of the features.

    Attributes:
        plan: Its inputs are the packed rows, and scales of rows that bring theirs.
        packed: Values of the packed rows by site.
        scales: Likewise of the scales, of those sites that have one per row.
    """

    plan: Plan
    packed: dict[str, list[int]]
    scales: dict[str, list[int]]

    def values(self, rows: Mapping[str, Rows]) -> dict[int, Tensor] | None:
        """The inputs; None for rows of another format than the plan takes."""
        found: dict[int, Tensor] = {}
        for name, numbers in self.packed.items():
            data = rows[name].data
            if not isinstance(data, Dense) or data.coding:
                return None
            found.update(dict.fromkeys(numbers, data.packed))
            found.update(dict.fromkeys(self.scales.get(name, ()), rows[name].affine.scale))
        return found


def packed_ahead(plan: Plan, sites: Mapping[str, RowQuantizer]) -> Ahead | None:
    """The plan for features packed for some sites; None where it reads them otherwise.

    Args:
        plan: Of a model with one matrix of features.
        sites: Those that the features were packed for, by name.
    """
    about = plan.about
    names = [one["name"] for one in about["arguments"] if one["role"] == "node"]
    features = [one for one in about["inputs"] if one["name"] in names]
    if len(features) != 1:
        return None
    x, kept, inputs = features[0]["value"], [], []
    packed: dict[str, list[int]] = {}
    scales: dict[str, list[int]] = {}
    for step in about["steps"]:
        if f"v{x}" not in leaves(step["args"]):
            kept.append(step)
        elif step["op"] != "check_finite":  # what was packed is finite
            name = _site_of(step, plan, about["constants"], sites)
            if name is None:
                return None
            packed.setdefault(name, []).append(step["outs"][0])
            inputs.append({"value": step["outs"][0], "dtype": "uint8", "shape": [None, None]})
            if step["op"] == "pack_own":
                scales.setdefault(name, []).append(step["outs"][1])
                inputs.append({"value": step["outs"][1], "dtype": "float32", "shape": [None]})
    if set(packed) != set(sites):
        return None
    inputs = [{"name": f"packed {i}", **one} for i, one in enumerate(inputs)]
    rows = f"d{inputs[0]['value']}.0"
    kept = mapped(kept, lambda leaf: rows if leaf == f"d{x}.0" else leaf)
    if f"d{x}.1" in leaves(kept):
        return None
    made = {
        **about,
        "arguments": [
            *(one for one in about["arguments"] if one["name"] not in names),
            *({"place": i["name"], "name": i["name"], "role": "node"} for i in inputs),
        ],
        "inputs": [*inputs, *(one for one in about["inputs"] if one is not features[0])],
        "steps": kept,
    }
    text = json.dumps(made, separators=(",", ":"))
    return Ahead(Plan(text, plan.constants), packed, scales)


def _site_of(
    step: dict[str, Any],
    plan: Plan,
    constants: Mapping[str, str],
    sites: Mapping[str, RowQuantizer],
) -> str | None:
    """The site that packs the features in this step."""
    op, args = step["op"], step["args"]
    for name, site in sites.items():
        if op == "pack_own":
            if site.own_scales and args[1:] == [site.bits, site.signed]:
                return name
        elif op == "quantize_pack" and args[5] is None and site.place(0) == Place():
            encoding = site.encoding(Place())
            if (
                encoding is None
                or encoding.coding
                or args[3:5] != [encoding.affine.axis, encoding.bits]
            ):
                continue
            given = [plan.constants.get(constants.get(arg[1:], "")) for arg in args[1:3]]
            if all(
                one is not None and torch.equal(one, own)
                for one, own in zip(given, (encoding.affine.scale, encoding.rounding), strict=True)
            ):
                return name
    return None
