"""Writes the corpus of seeds: valid files of every form.

PYTHONPATH=tests python -m fuzz.seeds
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fuzz.models import MODELS, inputs_of
from fuzz.runs import FINGERPRINT, new_loop, new_study, new_table
from nodebits import convert, load, prepare
from nodebits.methods import make_config
from nodebits.train.checkpoint import save_checkpoint

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
OLD = HERE.parent / "runtime" / "data" / "version1_gcn.safetensors"
CONFIG = """\
# A run on the embedded data set
dataset = "digits"
model = "gcn"
method = "degree-quant"
bits = 4
lr = 0.01
dropout = 0.5
epochs = 8
seeds = 2
hidden = 16
warm-start = true
splits = [2, 5, 9]

[override]
"convs.0.*" = 8
"convs.1.message" = [4, 2, 2]
"""


def main() -> None:
    """Makes the corpus anew."""
    torch.set_num_threads(1)
    shutil.rmtree(CORPUS, ignore_errors=True)
    for folder in ("model", "features", "checkpoint", "study", "costs", "config", "data"):
        (CORPUS / folder).mkdir(parents=True)
    for name in MODELS:
        _model(name)
    shutil.copy(OLD, CORPUS / "model" / "version1_gcn")
    _checkpoints()
    study, table = new_study(), new_table()
    study.path = CORPUS / "study" / "search.json"
    study.save()
    (CORPUS / "costs" / "costs.json").write_text(json.dumps(table.to_json()))
    (CORPUS / "config" / "quantize.toml").write_text(CONFIG)
    (CORPUS / "data" / "graph.npz").write_bytes(_npz())
    size = sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
    print(f"{size} bytes")


def _model(name: str) -> None:
    kind, inputs = MODELS[name], inputs_of(name)
    torch.manual_seed(0)
    config = make_config(kind.method, bits=4, **kind.options)
    prepared = prepare(kind.float(), config).train()
    optimizer = torch.optim.Adam(prepared.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        out = prepared(*inputs)
        nn.functional.cross_entropy(out, torch.arange(out.size(0)) % out.size(1)).backward()
        optimizer.step()
    path = CORPUS / "model" / name
    convert(prepared.eval(), kind.spec).save(path)
    packed = load(path, None if kind.spec else kind.float())
    if kind.features:
        more = {"edge_index": inputs[1]} if len(inputs) > 1 else {}
        packed.save_input(packed.pack_input(inputs[0], **more), CORPUS / "features" / name)


def _checkpoints() -> None:
    for name in ("plain", "cosine"):
        loop = new_loop(name)
        loop.train_epoch(lambda: False)
        loop.validate()
        save_checkpoint(CORPUS / "checkpoint" / name, FINGERPRINT, loop.state())


def _npz() -> bytes:
    import numpy as np
    import scipy.sparse

    parts: dict[str, Any] = {"labels": np.arange(9) % 3}
    matrices = {
        "attr": scipy.sparse.random(9, 7, 0.3, "csr", random_state=1, dtype=np.float32),
        "adj": scipy.sparse.random(9, 9, 0.3, "csr", random_state=2, dtype=np.float32),
    }
    for name, matrix in matrices.items():
        parts |= {f"{name}_{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        parts[f"{name}_shape"] = np.array(matrix.shape)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **parts)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
