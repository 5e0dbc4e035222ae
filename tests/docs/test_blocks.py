"""Every block of code in the documentation works as it is written.

Blocks of one page share names and a folder. `make docs-test` runs them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.blocks import Block, blocks_of
from docs.commands import look_at, shortened
from example_packages import installed_examples
from forking import COMMAND, TORCH, Python

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "docs/**/*.ipynb", "benchmarks/*.md", "examples/*/*.md")
    for path in REPOSITORY.glob(pattern)
    if any(not block.skipped for block in blocks_of(path))
)
_LIBRARY = (
    "nodebits.cli.app",
    "nodebits.jobs.quantize",
    "nodebits.jobs.compare",
    "nodebits.runtime",
)
_IMPORTED = (*TORCH, *COMMAND, "sklearn.datasets", "scipy.sparse", "matplotlib.figure", *_LIBRARY)

_CODE = """
import json, sys
from docs.run_page import run
from docs.samples import main
task = json.loads(open(sys.argv[1]).read())
main(task["folder"])
faults = run(task["blocks"], task["folder"], task["repository"])
print("FAULTS" + json.dumps(faults))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Python]:
    """Runs code in copies of a process that has imported what takes long.

    The packages of examples/ are installed there, as pages tell their readers to do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(installed_examples(tmp_path_factory)), prepend=os.pathsep)
        python = Python(tmp_path_factory.mktemp("pages"), _IMPORTED)
    yield python
    python.stop()


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_blocks_of_a_page_run(page: Path, imported: Python, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    task = {
        "blocks": [block.json() for block in blocks_of(page)],
        "folder": str(folder),
        "repository": str(REPOSITORY),
    }
    (tmp_path / "task.json").write_text(json.dumps(task))
    here = Path(__file__).resolve().parents[1]
    cache = str(tmp_path / "cache")
    done = imported(_CODE, tmp_path / "task.json", path=[here], NODEBITS_CACHE=cache)
    assert "FAULTS" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    faults = json.loads(done.stdout.rpartition("FAULTS")[2])
    assert not faults, "\n".join(faults)


TEXT = """
<!-- hidden: x = 1 -->
```python
print(x)
```
<!-- raises: KeyError -->
```python
{}["a"]
```

    nodebits methods

And this:

    just text

<!-- not run: a reason -->
```sh
rm -rf all
```

```toml
a = 1
```
"""


def test_blocks_are_found_with_what_is_said_of_them(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(TEXT)
    found = [block.code.strip() for block in blocks_of(tmp_path / "page.md")]
    assert found == ["x = 1", "print(x)", '{}["a"]', "nodebits methods", "rm -rf all"]
    said = [(b.raises, b.skipped) for b in blocks_of(tmp_path / "page.md")]
    assert said == [("", ""), ("", ""), ("KeyError", ""), ("", ""), ("", "a reason")]


def test_a_shell_block_is_known_by_how_it_begins(tmp_path: Path) -> None:
    notebook = {"cells": [{"cell_type": "code", "source": ["x = 1\n", "y = 2"], "outputs": []}]}
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook))
    assert blocks_of(tmp_path / "n.ipynb") == [Block(1, "python", "x = 1\ny = 2")]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("make nothing", "no target"),
        ("pip install nodebits[wings]", "no extra 'wings'"),
        ("pip install examples/none", "not there"),
        ("python benchmarks/none.py", "not there"),
        ("python benchmarks/accuracy.py --no-such-option", "no option"),
        ("rm -rf all", "no way"),
    ],
)
def test_a_command_that_cannot_work_is_a_fault(words: str, fault: str) -> None:
    assert fault in look_at(words.split(), REPOSITORY)


def test_commands_are_run_on_small_data() -> None:
    given = "quantize --dataset Cora --data-root DIR --bits 8,4 --epochs 300 --out runs/x".split()
    assert shortened(given)[:5] == ["quantize", "--dataset", "digits", "--bits", "8"]
    assert shortened(given).count("--epochs") == 1 and "--latency-repeats" in shortened(given)
