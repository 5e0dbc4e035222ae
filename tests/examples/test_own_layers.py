"""Layers of another package, installed: found by type and by name, missed with a clear word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run

CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus" / "model"
# Files from when the layers were nodebits' own, and the bits that they gave then.
FILES = {"elastic": "bd57ff4e88fb3ac0", "constrained": "dea0fe9b47bd866c"}
OLD_SMP = "5c9870ad7a35baed"
PREDICT = """
import hashlib, sys, torch, nodebits
generator = torch.Generator().manual_seed(0)
x = torch.randn(12, 6, generator=generator)
ring = torch.stack([torch.arange(12), torch.arange(12).roll(1)])
model = nodebits.load(sys.argv[1])
out = model.predict(x, torch.cat([ring, ring.flip(0)], 1))
print(hashlib.sha256(out.numpy().tobytes()).hexdigest()[:16])
"""
PREPARE = """
import torch, nodebits
from nodebits.nn import supported_layers
assert "nodebits_smoothness.ElasticConv" in supported_layers()
import nodebits_smoothness.elastic_conv as own
model = torch.nn.Sequential(torch.nn.Linear(4, 4), own.ElasticConv(2))
print(type(nodebits.prepare(model, nodebits.UniformConfig(bits=4))[1]).__name__)
"""


@pytest.mark.parametrize("name", FILES)
def test_files_from_before_give_the_same_bits(nodebits: Run, name: str) -> None:
    done = nodebits.code(PREDICT, CORPUS / name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == FILES[name]


@pytest.mark.parametrize("name", ["elastic", pytest.param("constrained", marks=pytest.mark.slow)])
def test_without_the_package_the_file_says_what_to_install(bare: Run, name: str) -> None:
    for done in (bare.code(PREDICT, CORPUS / name), bare("evaluate", CORPUS / name)):
        assert done.returncode != 0
        assert "is part of nodebits-smoothness, which is not installed: pip install" in done.stderr


def test_smp_without_a_constraint_needs_no_package(bare: Run) -> None:
    done = bare.code(PREDICT, CORPUS / "smp")
    assert done.stdout.strip() == OLD_SMP, done.stderr


def test_prepare_finds_the_layer(nodebits: Run) -> None:
    done = nodebits.code(PREPARE)
    assert done.stdout.strip() == "QuantElasticConv", done.stderr


@pytest.mark.parametrize(
    "model", ["elastic", pytest.param("smp-laplacian", marks=pytest.mark.slow)]
)
def test_the_command_trains_and_reads_them(
    nodebits: Run, bare: Run, model: str, tmp_path: Path
) -> None:
    job = ["quantize", "--dataset", "rings", "--model", model, "--steps", "2", "--bits", "4"]
    job += ["--epochs", "10", "--latency-repeats", "1", "--no-progress", "--json"]
    done = nodebits(*job, "--out", tmp_path / "x")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["agreement"] == 1.0
    file = tmp_path / "x" / "model.safetensors"
    assert nodebits("evaluate", file, "--json").returncode == 0
    missing = bare("quantize", "--dataset", "digits", "--model", model, "--out", tmp_path / "y")
    assert missing.returncode == 2 and "nodebits-smoothness" in missing.stderr


def test_a_broken_package_is_named(bare: Run) -> None:
    place = bare.folder / "broken-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    for layer, word in (("QuantX", "cannot be loaded"), ("QuantGCNConv", "is nodebits' own")):
        points = f"[nodebits.layers]\n{layer} = no_such_module:{layer}\n"
        (place / "entry_points.txt").write_text(points)
        done = bare.code("from nodebits.nn import supported_layers\nsupported_layers()")
        assert f"ConfigError: layer '{layer}'" in done.stderr and word in done.stderr
