"""R5 and R6: a flipped bit and a missing end are noticed.

    python benchmarks/reliability/damage.py

Every bit of the headers of five files is flipped, and random bits of the bytes behind them; every
prefix of small files is opened, and one in 4 KiB of a large one. A file that still opens counts,
whatever it holds, and so does any error but ``FileFormatError``.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from record import Result, record
from torch import nn

from fuzz.target import CORPUS
from nodebits import convert, prepare
from nodebits.core.errors import FileFormatError
from nodebits.methods import make_config
from nodebits.runtime import container

KINDS = {
    "model": container.MODEL,
    "features": container.FEATURES,
    "checkpoint": container.CHECKPOINT,
}
SMALL = ("model/linear", "model/gcn", "features/sage", "features/sparse", "checkpoint/plain")
PAYLOAD_BITS, STEP = 20_000, 4096


def noticed(path: Path, kind: str) -> bool:
    """Whether opening the file gives the error of damaged files."""
    try:
        container.read(path, kind)
    except FileFormatError:
        return True
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return False


def flips(work: Path) -> tuple[int, int, int]:
    """Header bits and payload bits that were flipped, and how many went unnoticed."""
    r = random.Random(0)
    header_bits = payload_bits = missed = 0
    for name in SMALL:
        data, kind = (CORPUS / name).read_bytes(), KINDS[name.partition("/")[0]]
        end = 8 + int.from_bytes(data[:8], "little")
        some = PAYLOAD_BITS // len(SMALL)
        chosen = [r.randrange(8 * end, 8 * len(data)) for _ in range(some)]
        for bit in (*range(8 * end), *chosen):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            work.write_bytes(changed)
            missed += not noticed(work, kind)
        header_bits, payload_bits = header_bits + 8 * end, payload_bits + some
    return header_bits, payload_bits, missed


def large_file(path: Path) -> bytes:
    """A model of 4 MiB."""
    torch.manual_seed(0)
    prepared = prepare(nn.Sequential(nn.Linear(2048, 2048)), make_config("uniform", bits=8)).train()
    prepared(torch.randn(8, 2048))
    convert(prepared.eval()).save(path)
    return path.read_bytes()


def prefixes(work: Path) -> tuple[int, int, int]:
    """Prefixes of small files and of a large one that were tried; how many went unnoticed."""
    small = missed = 0
    for name in SMALL:
        data, kind = (CORPUS / name).read_bytes(), KINDS[name.partition("/")[0]]
        for length in range(len(data)):
            work.write_bytes(data[:length])
            missed += not noticed(work, kind)
        small += len(data)
    data = large_file(work)
    lengths = range(0, len(data), STEP)
    for length in reversed(lengths):
        with work.open("r+b") as stream:
            stream.truncate(length)
        missed += not noticed(work, container.MODEL)
    return small, len(lengths), missed


def main() -> None:
    """Writes both rows."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "file"
        small, large, missed_ends = prefixes(work)
        middle = time.perf_counter()
        header_bits, payload_bits, missed_bits = flips(work)
    ends = Result(
        "R6",
        "Truncation is noticed",
        f"{small:,} prefixes of {len(SMALL)} small files, all there are, and {large:,} of a model "
        f"of 4 MiB, one in 4 KiB: {missed_ends} opened",
        small + large,
        missed_ends,
        not missed_ends,
    )
    bits = Result(
        "R5",
        "Damage is noticed",
        f"{header_bits:,} bits, all of {len(SMALL)} headers, and {payload_bits:,} random bits "
        f"behind them: {missed_bits} unnoticed",
        header_bits + payload_bits,
        missed_bits,
        not missed_bits,
    )
    # Each row says how long its own part took.
    record(bits, middle)
    record(ends, started + time.perf_counter() - middle)


if __name__ == "__main__":
    main()
