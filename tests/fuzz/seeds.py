"""Writes the corpus of seeds: valid files of every form.

PYTHONPATH=tests python -m fuzz.seeds
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fuzz.models import MODELS, graph, inputs_of
from fuzz.runs import FINGERPRINT, new_loop, new_study, new_table
from nodebits import GraphSession, Packing, convert, load, pack_features, prepare
from nodebits.distributed.files import write_parts
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
    _large()
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


def _large() -> None:
    for folder in ("rows", "part", "partition", "snapshot", "updates"):
        shutil.rmtree(CORPUS / folder, ignore_errors=True)
        (CORPUS / folder).mkdir(parents=True)
    x, edges = graph()
    for granularity in ("tensor", "column", "row"):
        packing = Packing(bits=4, granularity=granularity)
        pack_features(x.numpy(), CORPUS / "rows" / granularity, packing)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, parts in (("alone", 1), ("first", 2)):
            write_parts(folder / name, edges, {"x": x}, {}, parts, name="small")
            shutil.copy(folder / name / "part-0.safetensors", CORPUS / "part" / name)
            shutil.copy(folder / name / "partition.json", CORPUS / "part" / f"{name}.json")
        shutil.copy(CORPUS / "part" / "alone.json", CORPUS / "partition" / "alone")
        packed = load(CORPUS / "model" / "gcn")
        with GraphSession(packed, edges, x, log=folder / "log") as session:
            session.add_edges(torch.tensor([[1, 2], [3, 3]]))
            session.remove_edges(edges[:, :2])
            session.add_nodes(x[:2])
            session.set_features([0, 5], x[2:4])
            session.remove_nodes([4])
        for kind in ("snapshot", "updates"):
            (file,) = (folder / "log").glob(f"{kind}-*")
            shutil.copy(file, CORPUS / kind / "gcn")


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
