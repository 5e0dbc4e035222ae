r"""A float GraphSAGE trained from packed features: accuracy, time of an epoch, memory.

    R=benchmarks/results/packed_features
    python benchmarks/packed_features.py --data-root DATA --out $R.jsonl
    python benchmarks/packed_features.py --data-root DATA --datasets Coauthor-CS --seeds 1 \
      --out $R.jsonl
    python benchmarks/packed_features.py --table $R.jsonl > $R.md

PyG's ``NeighborLoader`` draws the batches with our sampler: two layers, ten neighbours a hop. The
features are a float32 tensor, or a file of 8 or 4 bits with a scale per column, which is mapped and
decoded for the nodes of each batch. Every run is a process of its own. A fifth of the nodes trains,
a fifth validates, the rest is the test, drawn by the seed; the epoch is selected on validation, and
test nodes are looked at once. Rows that are there are skipped.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GraphSAGE

import nodebits
from machines import by_machine
from nodebits.bench.environment import describe_environment
from nodebits.train import NeighborSampler

SETS = ("Coauthor-CS", "Amazon-Computers", "PubMed")
WIDTHS = (32, 8, 4)
SEEDS, EPOCHS, BATCH, HIDDEN, NEIGHBORS = 3, 10, 256, 64, [10, 10]
TITLE = """# Training from packed features

Made by `python benchmarks/packed_features.py --table`; its text says what was measured, and how.

"""
NOTES = """
More resident: what the process grew by when the features were opened and all rows read.
The peak holds batches and gradients too, which are the same at every width.
"""


def memory() -> tuple[float, float]:
    """MiB of this process that are in memory, and the most that ever were."""
    text = Path("/proc/self/status").read_text()
    now, most = (int(text.split(f"{name}:")[1].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


class Run:
    """The process that is measured.

    Args:
        folder: With ``graph.pt``, ``x.npy`` and packed features.
        bits: 32, or a width that was packed.
    """

    def __init__(self, folder: Path, bits: int) -> None:
        kept = torch.load(folder / "graph.pt", weights_only=True)
        self.data = Data(edge_index=kept["edge_index"], y=kept["y"], num_nodes=kept["y"].numel())
        self.before = memory()[0]
        self.transform: Any = None
        if bits == 32:
            self.data.x = torch.from_numpy(np.load(folder / "x.npy"))
            self.columns, self.held = self.data.x.size(1), self.data.x.nbytes
        else:
            features = nodebits.PackedFeatures(folder / f"x-{bits}.safetensors")
            self.columns, self.held = features.shape[1], features.nbytes
            self.transform = features.transform()
            for begin in range(0, features.shape[0], 500):
                features[begin : begin + 500]
        self.more = memory()[0] - self.before
        self.sampler = NeighborSampler(self.data, NEIGHBORS)

    def loader(self, nodes: Tensor, shuffle: bool = False) -> NeighborLoader:
        """Batches around some nodes."""
        return NeighborLoader(
            self.data,
            NEIGHBORS,
            nodes,
            batch_size=BATCH,
            shuffle=shuffle,
            neighbor_sampler=self.sampler,
            transform=self.transform,
        )

    def train(self, seed: int, epochs: int) -> dict[str, Any]:
        """One training; accuracies are of the epoch that validation selects."""
        torch.manual_seed(seed)
        order = torch.randperm(self.data.num_nodes)
        part = self.data.num_nodes // 5
        train, val, test = order[:part], order[part : 2 * part], order[2 * part :]
        model = GraphSAGE(self.columns, HIDDEN, 2, int(self.data.y.max()) + 1, dropout=0.5)
        optimizer = torch.optim.Adam(model.parameters(), 0.01, weight_decay=5e-4)
        best, state, seconds, busy = -1.0, model.state_dict(), [], []
        for _ in range(epochs):
            began, cpu = time.perf_counter(), time.process_time()
            model.train()
            for batch in self.loader(train, shuffle=True):
                optimizer.zero_grad()
                out = model(batch.x, batch.edge_index)[: batch.batch_size]
                cross_entropy(out, batch.y[: batch.batch_size]).backward()
                optimizer.step()
            seconds.append(time.perf_counter() - began)
            busy.append(time.process_time() - cpu)
            found = self.accuracy(model, val)
            if found > best:
                best, state = found, copy.deepcopy(model.state_dict())
        model.load_state_dict(state)
        return {
            "seed": seed,
            "val_accuracy": best,
            "test_accuracy": self.accuracy(model, test),
            "epoch_seconds": statistics.median(seconds),
            "epoch_cpu_seconds": statistics.median(busy),
        }

    @torch.no_grad()
    def accuracy(self, model: torch.nn.Module, nodes: Tensor) -> float:
        """Of some nodes, on samples that are the same in every run."""
        model.eval()
        right = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            for batch in self.loader(nodes):
                out = model(batch.x, batch.edge_index)[: batch.batch_size]
                right += int((out.argmax(1) == batch.y[: batch.batch_size]).sum())
        return right / nodes.numel()


def run(folder: Path, bits: int, seeds: int, epochs: int) -> None:
    """Prints what one process found."""
    one = Run(folder, bits)
    runs = [one.train(seed, epochs) for seed in range(seeds)]
    told = {
        "features_mib": one.held / 2**20,
        "more_resident_mib": one.more,
        "peak_mib": memory()[1],
        "runs": runs,
    }
    print(json.dumps(told))


def measure(args: argparse.Namespace) -> None:
    """Adds a row for every set and width that has none."""
    rows = [] if not args.out.exists() else args.out.read_text().splitlines()
    done = {(row["dataset"], row["bits"]) for row in map(json.loads, rows)}
    for name in args.datasets:
        if all((name, bits) in done for bits in args.widths):
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            data = nodebits.load_dataset(name, args.data_root).data
            torch.save({"edge_index": data.edge_index, "y": data.y}, folder / "graph.pt")
            np.save(folder / "x.npy", data.x.numpy())
            for bits in (b for b in args.widths if (name, b) not in done):
                if bits != 32:
                    packing = nodebits.Packing(bits=bits, granularity="column")
                    to = folder / f"x-{bits}.safetensors"
                    nodebits.pack_features(folder / "x.npy", to, packing)
                command = [sys.executable, __file__, "--run", str(folder), "--widths", str(bits)]
                command += ["--seeds", str(args.seeds), "--epochs", str(args.epochs)]
                told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                row = {
                    "dataset": name,
                    "bits": bits,
                    "nodes": data.num_nodes,
                    "columns": data.num_features,
                    "epochs": args.epochs,
                    **json.loads(told.splitlines()[-1]),
                    "environment": describe_environment(),
                    "load_average": round(os.getloadavg()[0], 1),
                }
                print(json.dumps(row), flush=True)
                with args.out.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")


def table(path: Path) -> str:
    """Rows of a file as Markdown, each machine in a section of its own."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    parts = [f"## {machine}\n\n{_part(of)}" for machine, of in by_machine(rows).items()]
    return TITLE + "\n".join(parts) + NOTES


def _part(rows: list[dict[str, Any]]) -> str:
    lines = [
        "The processor time of an epoch is given, since other work ran beside it.",
        "",
        "| data | bits | seeds | epochs | test accuracy | validation | epoch, cpu s "
        "| features, MiB | more resident, MiB | peak, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        test, val = (
            [100 * one[f"{split}_accuracy"] for one in row["runs"]] for split in ("test", "val")
        )
        spread = f" ± {statistics.stdev(test):.2f}" if len(test) > 1 else ""
        epoch = statistics.median(one["epoch_cpu_seconds"] for one in row["runs"])
        kind = "float" if row["bits"] == 32 else str(row["bits"])
        lines.append(
            f"| {row['dataset']} | {kind} | {len(test)} | {row['epochs']} "
            f"| {statistics.mean(test):.2f}{spread} "
            f"| {statistics.mean(val):.2f} | {epoch:.2f} | {row['features_mib']:.1f} "
            f"| {row['more_resident_mib']:.0f} | {row['peak_mib']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, or prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON lines, to which rows are added")
    parser.add_argument("--table", type=Path, help="print the rows of a file as Markdown")
    parser.add_argument("--data-root")
    parser.add_argument("--datasets", nargs="+", default=list(SETS))
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print(table(args.table), end="")
    elif args.run:
        run(args.run, args.widths[0], args.seeds, args.epochs)
    elif args.out:
        measure(args)
    else:
        parser.error("--out FILE or --table FILE is needed")


if __name__ == "__main__":
    main()
