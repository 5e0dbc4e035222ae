"""R7: a file that changes while it is read, or afterwards, ends no process.

    python benchmarks/reliability/moving_file.py

A writer truncates, empties, overwrites or replaces the file in place while a reader process opens
it again and again, and each opened model is used after that. Files are read into memory and never
mapped, so what was opened does not follow the file.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from record import Result, record
from torch import nn
from torch_geometric.nn import SAGEConv

from nodebits import UniformConfig, calibrate, convert, load, prepare
from nodebits.core.errors import NodebitsError

SECONDS = 20
HIDDEN = 512  # a file of half a MiB: it changes while it is read


def model_and_input(seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A wide layer, features and edges."""
    torch.manual_seed(seed)
    layer = SAGEConv(HIDDEN, HIDDEN)
    torch.manual_seed(0)
    return layer, torch.randn(20, HIDDEN), torch.randint(0, 20, (2, 60))


def read_all(path: str, seconds: float) -> None:
    """The reader: opens and uses the file until the time is over; prints what happened."""
    torch.set_num_threads(1)
    known = torch.load(f"{path}.results", weights_only=True)
    _, x, edge_index = model_and_input(0)
    found: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            model = load(path, model=model_and_input(0)[0])
        except NodebitsError as error:
            found[type(error).__name__] += 1
            continue
        except FileNotFoundError:
            found["FileNotFoundError"] += 1
            continue
        time.sleep(0.005)  # the writer goes on
        result = model.predict(x, edge_index)
        found["right" if any(torch.equal(result, k) for k in known) else "wrong"] += 1
    print(json.dumps(found))


def changes(path: Path, contents: list[bytes]) -> list[Callable[[random.Random], object]]:
    """Ways to change the file without its writer's care."""

    def overwrite(r: random.Random) -> None:
        with path.open("r+b") as stream:
            stream.seek(r.randrange(len(contents[0])))
            stream.write(r.randbytes(4096))

    def replace(r: random.Random) -> None:
        other = path.with_suffix(".other")
        other.write_bytes(r.choice(contents))
        os.replace(other, path)

    return [
        lambda r: os.truncate(path, r.randrange(len(contents[0]))),
        lambda r: os.truncate(path, 0),
        lambda r: path.unlink(missing_ok=True),
        lambda r: path.write_bytes(r.choice(contents)),
        overwrite,
        replace,
        replace,
        replace,
    ]


def main() -> None:
    """Changes the file while readers open it."""
    if sys.argv[1:2] == ["read"]:
        read_all(sys.argv[2], float(sys.argv[3]))
        return
    started = time.perf_counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        contents, known = [], []
        for seed in (1, 2):
            layer, x, edge_index = model_and_input(seed)
            prepared = prepare(layer, UniformConfig(bits=8, mode="ptq")).eval()
            calibrate(prepared, x, edge_index)
            packed = convert(prepared)
            packed.save(path)
            contents.append(path.read_bytes())
            known.append(packed.predict(x, edge_index))
        torch.save(known, f"{path}.results")
        r, made = random.Random(0), 0
        command = [sys.executable, __file__, "read", str(path), str(SECONDS)]
        readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        while any(reader.poll() is None for reader in readers):
            try:
                r.choice(changes(path, contents))(r)
                made += 1
            except FileNotFoundError:
                path.write_bytes(contents[0])
            time.sleep(r.uniform(0, 0.02))
        found: Counter[str] = Counter()
        for reader in readers:
            text = reader.communicate()[0]
            found["signals or unexpected errors"] += int(reader.returncode != 0)
            found.update(json.loads(text) if reader.returncode == 0 else {})
    bad = found.pop("signals or unexpected errors") + found["wrong"]
    opened = found.total()
    errors = {k: v for k, v in found.items() if k not in ("right", "wrong")}
    listed = ", ".join(f"{count:,} {name}" for name, count in sorted(errors.items()))
    record(
        Result(
            "R7",
            "A changing file cannot end the process",
            f"{made:,} changes in place under 2 readers, {opened:,} openings: "
            f"{found['right']:,} right results, {listed}, {found['wrong']} wrong, 0 signals"
            if not bad
            else f"{bad} wrong results, signals or unexpected errors",
            opened,
            bad,
            not bad,
            "There is no mapped mode: files are read into memory.",
        ),
        started,
    )


if __name__ == "__main__":
    main()
