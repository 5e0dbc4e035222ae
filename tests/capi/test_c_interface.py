"""libnodebits: built, installed, used from C, on this machine and on an emulated one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from model_files import degrees, folded_bytes, scaled, write_model

from nodebits.lite import load

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests" / "lite" / "models"
MIB = 1 << 20


@dataclass(frozen=True)
class Machine:
    """What code is compiled with and run by."""

    name: str
    c: str
    cxx: str
    strip: str
    options: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()


HERE = Machine("here", "cc", "c++", "strip")
EMULATED = Machine(
    "aarch64",
    "aarch64-linux-gnu-gcc",
    "aarch64-linux-gnu-g++",
    "aarch64-linux-gnu-strip",
    ("CMAKE_SYSTEM_NAME=Linux", "CMAKE_SYSTEM_PROCESSOR=aarch64"),
    ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform == "win32", reason="needs a compiler of a Unix"),
]


def _run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    shown = f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    assert done.returncode == 0, shown
    return done.stdout


def _cmake(*arguments: str | Path) -> str:
    """The one that the build of the extension takes, or the system's."""
    try:
        import cmake
    except ImportError:
        return _run("cmake", *arguments)
    return _run(Path(cmake.CMAKE_BIN_DIR) / "cmake", *arguments)


@dataclass(frozen=True)
class Installed:
    """An installed library and what uses it."""

    machine: Machine
    build: Path

    @property
    def prefix(self) -> Path:
        return self.build / "prefix"

    @property
    def library(self) -> Path:
        (path,) = self.prefix.glob("lib*/libnodebits.*.0" if sys.platform != "darwin" else "lib/*")
        return path

    def configure(self, source: Path, build: Path, *options: str) -> None:
        """Configures and builds a project."""
        machine = self.machine
        given = (f"CMAKE_C_COMPILER={machine.c}", f"CMAKE_CXX_COMPILER={machine.cxx}")
        flags = [f"-D{option}" for option in (*machine.options, *given, *options)]
        _cmake("-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", *flags)
        _cmake("--build", build, "--parallel", str(min(4, os.cpu_count() or 1)))

    def run(self, program: Path, *arguments: str | Path) -> str:
        """Runs what was built with the library."""
        folder = str(self.library.parent)
        return _run(*self.machine.runner, program, *arguments, LD_LIBRARY_PATH=folder)


@pytest.fixture(scope="module", params=[HERE, EMULATED], ids=lambda machine: machine.name)
def installed(request: pytest.FixtureRequest) -> Installed:
    machine: Machine = request.param
    for program in (machine.c, machine.cxx, *machine.runner[:1]):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (Debian: g++-aarch64-linux-gnu, qemu-user)")
    made = Installed(machine, ROOT / "build" / "capi" / machine.name)
    made.configure(ROOT, made.build, "NODEBITS_MODULE=OFF", "NODEBITS_LIBRARY=ON")
    _cmake("--install", made.build, "--prefix", made.prefix)
    return made


def _compiled(installed: Installed, source: Path, program: Path) -> Path:
    """A C program, by what pkg-config says."""
    (folder,) = installed.prefix.glob("lib*/pkgconfig")
    if shutil.which("pkg-config"):
        flags = _run(
            "pkg-config", "--cflags", "--libs", "nodebits", PKG_CONFIG_PATH=str(folder)
        ).split()
    else:
        flags = [f"-I{installed.prefix}/include", f"-L{folder.parent}", "-lnodebits"]
    strict = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-pthread")
    _run(installed.machine.c, *strict, source, "-o", program, *flags)
    return program


def test_the_interface_keeps_its_word(installed: Installed, tmp_path: Path) -> None:
    program = _compiled(installed, ROOT / "tests" / "capi" / "checks.c", tmp_path / "checks")
    plan, tensors = scaled()
    tensors = {"scale": np.float32([0.5, 1.25, 2]), "shift": np.float32([-1, 0, 1])}
    files = write_model(tmp_path / "degrees", degrees()), write_model(tmp_path / "s", plan, tensors)
    folded = tmp_path / "folded degrees", tmp_path / "folded s"
    folded[0].write_bytes(folded_bytes(degrees()))
    folded[1].write_bytes(folded_bytes(plan, tensors))
    for given in (files, folded):
        out = installed.run(program, *given)
        if out and not installed.machine.runner:  # an emulator is resident too
            assert int(out.split()[-1]) < 30 * 1024


def test_only_the_interface_is_visible(installed: Installed) -> None:
    symbols = [
        line.split() for line in _run("nm", "-D", "--defined-only", installed.library).splitlines()
    ]
    names = {parts[-1].lstrip("_") for parts in symbols if parts[-2] not in "aA"}
    header = (ROOT / "csrc" / "capi" / "nodebits.h").read_text()
    declared = set(re.findall(r"NB_API [^(]*?(nb_\w+)\(", header))
    assert names == declared


def test_sizes(installed: Installed, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped"
    _run(installed.machine.strip, "-o", stripped, installed.library)
    assert stripped.stat().st_size < 3 * MIB


@pytest.mark.parametrize("name", sorted(path.stem for path in MODELS.glob("*.safetensors")))
def test_the_example(installed: Installed, name: str) -> None:
    build = installed.build / "example"
    installed.configure(ROOT / "examples" / "c", build, f"CMAKE_PREFIX_PATH={installed.prefix}")
    path, nodes = MODELS / f"{name}.safetensors", 30
    rows = installed.run(build / "predict", path, str(nodes), "2").splitlines()
    found = np.array([row.split() for row in rows], np.float32)
    model = load(path)
    i, j = np.indices((nodes, model.inputs[0].shape[1]))
    x = ((7 * i + 3 * j) % 11).astype(np.float32) / np.float32(11)
    ring = np.arange(nodes)
    edges = np.stack([ring, (ring + 1) % nodes], 1).ravel()
    given = {"x": x, "edge_index": np.stack([edges, edges.reshape(-1, 2)[:, ::-1].ravel()])}
    if "batch" in {item.name for item in model.inputs}:
        given["batch"] = np.zeros(nodes, np.int64)
    assert np.array_equal(found, model.predict(**given))
