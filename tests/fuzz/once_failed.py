"""Writes the inputs that once failed and that no run kept: made by hand, or of a seed.

PYTHONPATH=tests python -m fuzz.once_failed
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.containerwise import Parts, built
from fuzz.target import CORPUS

FOLDER = Path(__file__).resolve().parent / "regressions"


def changed_arrays(**changes: Any) -> bytes:
    """The seed's archive with other arrays."""
    with np.load(CORPUS / "data" / "graph.npz") as file:
        arrays = {**dict(file), **changes}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def without_sites(name: str, prefix: str) -> bytes:
    """A model whose layers lack the sites of this name, and their tensors."""
    parts = Parts((CORPUS / "model" / name).read_bytes())
    for entry in parts.header["layers"].values():
        for site in [s for s in entry["sites"] if s.startswith(prefix)]:
            del entry["sites"][site]
    for tensor in [t for t in parts.table if f".{prefix}" in t]:
        del parts.table[tensor], parts.payload[tensor], parts.header["checksums"][tensor]
    return built(parts)


def main() -> None:
    """Writes them."""
    FOLDER.mkdir(exist_ok=True)
    # SciPy followed indices out of its arrays: the heap was overwritten.
    wrong = {
        "indptr": {"attr_indptr": np.array([0, 9, 3, *[900] * 7], np.int32)},
        "indices": {"adj_indices": np.full(24, 10**6, np.int32)},
        "labels": {"labels": np.arange(3)},
        "columns": {"attr_shape": np.array([9, 2**30])},
    }
    for name, changes in wrong.items():
        (FOLDER / f"data--graph.npz--{name}").write_bytes(changed_arrays(**changes))
    (FOLDER / "config--quantize.toml--deep").write_text("bits = " + "[" * 3000)
    (FOLDER / "config--quantize.toml--digits").write_text("lr = " + "9" * 400)
    # AttributeError in the first forward.
    (FOLDER / "model--constrained--no-gap").write_bytes(without_sites("constrained", "gap_"))
    # AttributeError: names of tensors that are numbers.
    parts = Parts((CORPUS / "checkpoint" / "plain").read_bytes())
    text = json.dumps(parts.header["state"]).replace('"linear.weight"', "3")
    parts.header["state"] = json.loads(text)
    (FOLDER / "checkpoint--plain--number").write_bytes(built(parts))


if __name__ == "__main__":
    main()
