"""The NEON level: cross-compiled, run under an emulator, compared with the reference."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .cases import write_cases

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
LIBRARIES = Path("/usr/aarch64-linux-gnu")
ROOT = Path(__file__).parents[2]
FAMILIES = {
    "pack", "unpack", "quantize_pack", "fake_quantize", "quantize_pack_bucketed",
    "unpack_bucketed", "gemm", "spmm", "spmm_weighted", "rescale", "edge_softmax", "fused_spmm",
    "fused_gemm", "fused_gemm_bucketed", "propagate", "pair_scores", "attention_codes",
    "rectified_sum", "rectified_softmax", "gated_sum",
}  # fmt: skip


def _needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program} (Debian: g++-aarch64-linux-gnu, qemu-user)")
    return found


def _cmake() -> str:
    """The one that the build of the extension takes, or the system's."""
    try:
        import cmake
    except ImportError:
        return _needs("cmake")
    return str(Path(cmake.CMAKE_BIN_DIR) / "cmake")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_family_equals_the_reference(tmp_path: Path) -> None:
    cmake, compiler, emulator = _cmake(), _needs(COMPILER), _needs(EMULATOR)
    build = ROOT / "build" / "neon"
    options = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": compiler,
        "CMAKE_BUILD_TYPE": "Release",
        "NODEBITS_MODULE": "OFF",
        "NODEBITS_REPLAY": "ON",
    }
    _run(cmake, "-S", str(ROOT), "-B", str(build), *(f"-D{k}={v}" for k, v in options.items()))
    _run(cmake, "--build", str(build), "--parallel", str(min(4, os.cpu_count() or 1)))
    file = tmp_path / "cases"
    counts = write_cases(file)
    assert set(counts) == FAMILIES
    done = _run(emulator, "-L", str(LIBRARIES), str(build / "replay"), str(file))
    # Every case on one and on two threads, on both levels of the architecture.
    for level in ("scalar", "neon"):
        for name, count in counts.items():
            assert f"{level} {name}: {2 * count}\n" in done


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout
