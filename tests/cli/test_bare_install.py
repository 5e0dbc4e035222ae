"""What works without the extras, and what is refused before anything slow is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from forking import Python
from nodebits.methods import method_names
from nodebits.models import model_names

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EXTRAS = ("typer", "rich", "matplotlib", "sklearn", "scipy", "optuna", "starlette", "uvicorn")

HIDE = """
import sys
from importlib.machinery import PathFinder
there = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {names!r} else there(name, path, target)
PathFinder.find_spec = staticmethod(find_spec)
sys.argv = ["nodebits", *sys.argv[1:]]
"""
MAIN = "from nodebits.cli import main\nmain()\n"


def python(
    code: str, *arguments: str, hidden: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` where the modules ``hidden`` cannot be imported."""
    command = [sys.executable, "-c", without(hidden) + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


def without(hidden: tuple[str, ...]) -> str:
    """Code after which these cannot be imported."""
    return HIDE.format(names=set(hidden))


NO_TORCH = without(("torch", "numpy"))


@pytest.mark.parametrize(
    ("hidden", "words"),
    [(EXTRAS, "typer and rich, which are"), (("rich",), "rich, which is"), (("typer",), "typer")],
)
def test_the_command_names_the_extra(hidden: tuple[str, ...], words: str) -> None:
    result = python(MAIN, "--help", hidden=hidden)
    assert result.returncode == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("nodebits: ") and words in line and "pip install 'nodebits[cli]'" in line


def test_help_needs_the_extra_of_the_command_alone() -> None:
    result = python(MAIN, "--help", hidden=("sklearn", "scipy", "optuna", "matplotlib", "torch"))
    assert result.returncode == 0 and "quantize" in result.stdout


def readme() -> str:
    return (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_first_python_example_runs_on_what_its_install_line_installs(tmp_path: Path) -> None:
    (extras,) = set(re.findall(r'pip install "\.\[([a-z,]+)\]"', readme()))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    brought = " ".join(entry for extra in extras.split(",") for entry in optional[extra])
    brought = brought.replace("scikit-learn", "sklearn")
    hidden = tuple(name for name in EXTRAS if name not in brought)
    assert "optuna" in hidden and "sklearn" not in hidden
    example = re.search(r"```python\n(.*?)```", readme(), re.DOTALL)
    assert example is not None
    # Two epochs show that it runs; three hundred show how well.
    short = (
        "import functools, os, nodebits\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "nodebits.fit = functools.partial(nodebits.fit, config=nodebits.FitConfig(epochs=2))\n"
    )
    result = python(short + example.group(1), hidden=hidden)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "model.safetensors").exists()


def test_the_library_runs_without_any_extra_on_data_of_ones_own() -> None:
    code = """
import torch, nodebits
from torch_geometric.data import Data
from torch_geometric.nn import GCN
ring = torch.arange(30)
data = Data(x=torch.randn(30, 5), edge_index=torch.stack([ring, ring.roll(1)]), y=ring % 3)
data.train_mask, data.val_mask, data.test_mask = (ring // 10 == i for i in range(3))
prepared = nodebits.prepare(GCN(5, 8, 2, 3), nodebits.UniformConfig(bits=4))
nodebits.fit(prepared, data, nodebits.FitConfig(epochs=2))
print(nodebits.convert(prepared).predict(data.x, data.edge_index).shape)
try:
    nodebits.load_dataset("digits")
except ImportError as error:
    print(error)
"""
    result = python(code, hidden=EXTRAS)
    assert result.returncode == 0, result.stderr
    assert "[30, 3]" in result.stdout and "nodebits[data]" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bits", "9"],
        ["--bits", "0"],
        ["--bits", "3.5"],
        ["--bits", "abc"],
        ["--bits", ""],
        ["--bits", "-1"],
        ["--message-bits", "16"],
        ["--method", "unifrom"],
        ["--model", "gcm"],
        ["--dataset", "Coraa"],
        ["--dataset", "QM9"],
        ["--dropout", "nan"],
        ["--lr", "-1"],
        ["--epochs", "0"],
        ["--patience", "-1"],
        ["--preset", "publish"],
    ],
)
def test_bad_options_are_refused_before_torch_is_imported(
    arguments: list[str], command: Python
) -> None:
    result = command(NO_TORCH + MAIN, "quantize", "--out", "x", *arguments)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert arguments[0].strip("-") in line or arguments[1] in line


def test_a_refusal_takes_half_a_second_of_a_free_machine() -> None:
    """Counted is the process's own time, which others that compete for the cores may double."""
    code = "import atexit, time; atexit.register(lambda: print(time.process_time()))\n" + MAIN
    for arguments in (["quantize", "--out", "x", "--bits", "9"], ["--help"]):
        result = python(code, *arguments)
        assert float(result.stdout.splitlines()[-1]) < 1.0


@pytest.mark.parametrize("what", ["methods", "models"])
def test_names_are_listed_without_torch(what: str, command: Python) -> None:
    result = command(NO_TORCH + MAIN, what, "--json")
    listed = json.loads(result.stdout)
    assert list(listed) == {"methods": method_names, "models": model_names}[what]()
    assert all(listed.values()), "an entry without a docstring"


def test_options_of_methods_and_models_are_there_without_torch(command: Python) -> None:
    result = command(NO_TORCH + MAIN, "quantize", "--help")
    for option in ("--target-bits", "--degree-bits", "--noise", "--snap", "--teleport", "--pool"):
        assert option in result.stdout
