"""The kernels compile for cards that are not here, and round as the definitions do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from on_triton import needs_triton

pytestmark = needs_triton

HERE = Path(__file__).resolve().parent
KERNELS = {
    "attend", "extreme_parts", "extreme_rows", "fake_quantize", "fake_quantize_backward",
    "finish_floats", "finish_statistics", "finish_sums", "gather", "modulate", "multiply",
    "multiply_levels", "nearest_group", "pack", "pair_parts", "pair_rows", "rescale_backward",
    "scores", "softmax", "statistics_parts", "statistics_rows", "sum_parts", "sum_rows", "take",
    "unpack",
}  # fmt: skip


def compile_for(capability: int, tmp_path: Path, *options: str) -> dict[str, object]:
    paths = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    environment["PYTHONPATH"] = os.pathsep.join([*paths, environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "compile_kernels.py"), str(capability), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, object] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize("capability", (80, 90))
def test_every_kernel(capability: int, tmp_path: Path) -> None:
    made = compile_for(capability, tmp_path)
    assert set(made["forms"]) == KERNELS and not made["other rounding"]  # type: ignore[call-overload]


def test_contracted_products_would_be_seen(tmp_path: Path) -> None:
    made = compile_for(80, tmp_path, "--fuse", "--only", "rescale")
    assert any("fma" in one for one in made["other rounding"])  # type: ignore[attr-defined]
