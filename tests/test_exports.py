"""The public names: what type checkers see is what the interpreter finds, at no cost."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nodebits
import stubs
from nodebits.core.registry import METHODS

SOURCE = Path(nodebits.__file__)
REPOSITORY = Path(__file__).resolve().parent.parent
# What a user writes, without torch's names but for what it gets back.
SCRIPT = '''
"""Train, pack, save, predict."""

from pathlib import Path

import torch
from torch import nn

import nodebits
from nodebits import DegreeQuantConfig, FitConfig, ModelSpec, NodebitsError, PackedModel


def train(bits: int) -> PackedModel:
    """Trains a small model on digits."""
    dataset = nodebits.load_dataset("digits", split=1)
    spec = ModelSpec("gcn", dataset.num_features, 16, dataset.num_classes)
    model: nn.Module = nodebits.build_model(spec)
    prepared = nodebits.prepare(model, DegreeQuantConfig(bits=bits))
    result = nodebits.fit(prepared, dataset, FitConfig(epochs=5, progress=False))
    seconds: float = result.seconds
    print(f"{seconds:.1f} s")
    return nodebits.convert(prepared, spec)


def main(path: Path) -> torch.Tensor:
    """Saves what was trained and asks it about one graph."""
    try:
        train(4).save(path)
    except NodebitsError as error:
        raise SystemExit(str(error)) from error
    packed = nodebits.load(path)
    # A packed module of the user's own may return anything.
    logits: torch.Tensor = packed.predict(torch.zeros(3, 64), torch.tensor([[0, 1], [1, 2]]))
    return logits


main(Path("model.safetensors"))
'''


def imported(source: str) -> set[str]:
    """What a list of imports makes public; the star stands for the configs."""
    found = [a for n in ast.parse(source).body if isinstance(n, ast.ImportFrom) for a in n.names]
    assert all(a.name == a.asname or a.name == "*" for a in found)
    names = {a.name for a in found}
    return names - {"*"} | (imported(stubs.configs()) if "*" in names else set())


def test_both_sides_know_the_same_names() -> None:
    (block,) = (node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
    checked = imported("\n".join(map(ast.unparse, block.body)))
    assert (
        checked == set(nodebits.__all__) - {"__version__"} == set(dir(nodebits)) - {"__version__"}
    )
    for name in nodebits.__all__:
        assert getattr(nodebits, name) is not None
    namespace: dict[str, object] = {}
    exec("from nodebits import *", namespace)
    assert set(nodebits.__all__) <= set(namespace)


def test_type_checkers_know_the_config_of_every_method() -> None:
    definitions = {entry.definition.name: name for name, entry in METHODS.listed.items()}
    assert imported(stubs.CONFIGS.read_text()) == set(definitions)
    assert stubs.CONFIGS.read_text() == stubs.configs(), "make stubs"
    for config, method in definitions.items():
        assert getattr(nodebits, config) is getattr(nodebits.methods, config) is METHODS.get(method)


def test_names_that_are_not_there() -> None:
    for name in ("NoConfig", "nothing"):
        with pytest.raises(AttributeError, match=name):
            getattr(nodebits, name)


def test_packages_are_there_without_an_import_of_their_own() -> None:
    code = (
        "import nodebits\n"
        f"for name in {nodebits._PACKAGES!r}: print(getattr(nodebits, name).__name__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [f"nodebits.{name}" for name in nodebits._PACKAGES]


def test_importing_costs_nothing() -> None:
    """The process's own time, so that others on the machine do not count; torch stays out."""
    code = (
        "import sys, time; start = time.process_time(); import nodebits\n"
        "print(time.process_time() - start); dir(nodebits); assert 'torch' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 0.2


def readme_example() -> str:
    """The Python block of the README."""
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
    return str(example)


@pytest.mark.slow
def test_a_users_script_passes_strict_types(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "readme.py").write_text(readme_example())
    wrong = SCRIPT.replace("DegreeQuantConfig(bits=bits)", 'DegreeQuantConfig(bits="four")')
    (tmp_path / "wrong.py").write_text(wrong)
    # PyG has no types; whoever is strict tells mypy so.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\nfollow_imports = silent\n"
        "[mypy-torch_geometric.*]\nignore_missing_imports = True\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-m", "mypy", "--config-file", tmp_path / "mypy.ini", file],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        ).stdout
        for file in ("script.py", "readme.py", "wrong.py")
    ]
    assert all("Success" in output for output in outputs[:2]), outputs
    assert '"bits" to "DegreeQuantConfig" has incompatible type "str"' in outputs[2], outputs[2]
