"""R13: with the faster instruction sets switched off, packed models give the same bits.

    python benchmarks/reliability/old_processors.py

Every level runs in a process of its own, chosen by ``NODEBITS_ISA``, which makes models, trains
them for two steps, packs them and runs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time

import torch
from record import Result, record

from nodebits import ops

from packed_models import make_case  # isort: skip  found by way of record

MODELS = ("gcn", "gin", "gat", "sage", "appnp")
METHODS = ("uniform", "degree-quant", "a2q", "sgquant")


def digests() -> dict[str, str]:
    """Results of models, in this process."""
    torch.set_num_threads(1)
    found = {}
    for model in MODELS:
        for method in METHODS:
            for bits in (8, 4, 2, 1) if method in ("uniform", "degree-quant") else (4,):
                case = make_case(model, method, bits)
                result = case.packed.predict(case.x, case.edge_index)
                found[f"{model} {method} {bits}"] = hashlib.sha256(
                    result.numpy().tobytes() + case.simulated.numpy().tobytes()
                ).hexdigest()
    return found


def main() -> None:
    """Compares the levels with the reference."""
    if sys.argv[1:] == ["process"]:
        print(json.dumps({"isa": ops.current_isa(), "found": digests()}))
        return
    started = time.perf_counter()
    found, signals = {}, 0
    for isa in ops.available_isas():
        done = subprocess.run(
            [sys.executable, __file__, "process"],
            env={**os.environ, "NODEBITS_ISA": isa},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            signals += 1
            print(isa, done.returncode, done.stderr[-500:])
            continue
        made = json.loads(done.stdout.splitlines()[-1])
        assert made["isa"] == isa
        found[isa] = made["found"]
    first = found["reference"]
    wrong = [f"{isa} {name}" for isa in found for name in first if found[isa][name] != first[name]]
    print("\n".join(wrong))
    missing = [isa for isa in ("avx512", "amx") if isa not in found]
    count = len(first) * (len(ops.available_isas()) - 1)
    record(
        Result(
            "R13",
            "Works on old processors",
            f"{len(first)} models trained, packed and run under each of "
            f"{', '.join(ops.available_isas())}: {count - len(wrong)} of {count} results equal the "
            f"reference, {signals} processes failed",
            count,
            len(wrong) + signals,
            False,
            "The whole test suite did not run per level. "
            + (f"This processor has no {' or '.join(missing)} to switch off." if missing else ""),
        ),
        started,
    )


if __name__ == "__main__":
    main()
