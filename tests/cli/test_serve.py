from __future__ import annotations

import json

import pytest
import torch

from forking import Python
from nodebits.cli.commands.serve import _loader
from nodebits.cli.settings import SavedModel
from nodebits.serving.questions import KnownRows
from nodebits.serving.served import Served

from .test_bare_install import MAIN, NO_TORCH, python


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "needs a token"),
        (["--port", "70000"], "from 0 to 65535"),
        (["--queue", "0"], "at least 1"),
        (["--token-file", "none"], "cannot be read"),
    ],
)
def test_what_is_refused_before_torch_is_imported(options, words, command: Python):
    result = command(NO_TORCH + MAIN, "serve", "model.safetensors", *options)
    assert result.returncode == 2 and words in " ".join(result.stderr.split())


def test_without_the_extra_the_cure_is_named():
    result = python(MAIN, "serve", "model.safetensors", hidden=("starlette", "uvicorn"))
    assert result.returncode == 1 and "pip install 'nodebits[serve]'" in result.stderr


def test_a_model_that_is_not_there(run, tmp_path):
    refused = run("serve", tmp_path / "none", "--port", "0")
    assert refused.code == 1 and "there is no model file" in refused.err


def test_what_a_command_loads_is_served(finished):
    """The model of a file with the data that the file names, as ``predict`` has them."""
    load = _loader(SavedModel(model=finished / "model.safetensors"))
    first, second = load(), load()
    assert first.problem is second.problem and first.packed is not second.packed
    (answer,) = Served(second, "v").answer([KnownRows(torch.tensor([5]), [5])])
    inputs = first.problem.example()
    outputs = first.packed.predict(inputs.x, inputs.edge_index)[5]
    assert json.loads(answer)["outputs"][0] == outputs.tolist()
