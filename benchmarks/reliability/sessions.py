"""Updates of a graph: predictions stay those of a whole forward, and no acknowledged one is lost.

    python benchmarks/reliability/sessions.py
    python benchmarks/reliability/sessions.py --updates 1000 --kills 10    # a try

Random updates of all kinds go to sessions of several models: edges that come and go, also parallel
ones and loops, nodes that come and go, features. After every one all predictions are compared with
those of the model on the graph as it then is, bit for bit. Then processes that update a session
with a log are killed in calls of the system, and what they left is compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import torch
from record import Result, record

import nodebits
from nodebits.core.errors import TornLogWarning

from packed_models import make_case, small_graph  # isort: skip  found by way of record
from session.streams import KINDS, step, whole  # isort: skip
from session.test_exact import weighted_model  # isort: skip
from session.test_log import test_no_acknowledged_update_is_lost  # isort: skip

UPDATES = tuple(kind for kind in KINDS if kind != "nothing")
# A session grows: it begins anew after so many updates.
_LENGTH = 250


def mismatches(packed: nodebits.PackedModel, seed: int, count: int, weighted: bool) -> int:
    """Predictions after so many updates that are not those of a whole forward."""
    x, edges = small_graph()
    generator = torch.Generator().manual_seed(seed)
    weight = {"edge_weight": torch.rand(edges.size(1), generator=generator)} if weighted else {}
    session = nodebits.GraphSession(packed, edges, x, **weight)
    found = 0
    for _ in range(count):
        kind = UPDATES[int(torch.randint(len(UPDATES), (), generator=generator))]
        step(session, kind, generator)
        found += not torch.equal(session.predict(), whole(packed, session))
    return found


def main() -> None:
    """Updates, compares, kills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    updated(args.updates)
    killed(args.kills)


def updated(count: int) -> None:
    """Updates and compares."""
    started = time.perf_counter()
    models = {name: make_case(name).packed for name in ("gcn", "sage", "gin", "gat")}
    models["weighted"] = weighted_model()
    found = made = seed = 0
    while made < count:
        for name, packed in models.items():
            length = min(_LENGTH, count - made)
            found += mismatches(packed, seed, length, name == "weighted")
            made, seed = made + length, seed + 1
    record(
        Result(
            "S8",
            "Updates are exact",
            f"{made:,} random updates of {len(models)} models, all predictions compared after "
            f"each: {found} mismatches",
            made,
            found,
            not found and made >= 100_000,
            "" if made >= 100_000 else "fewer than 100,000 updates",
        ),
        started,
    )


def killed(count: int) -> None:
    """Kills processes that update, and looks at what they left."""
    started = time.perf_counter()
    lost = 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", TornLogWarning)
        try:
            test_no_acknowledged_update_is_lost(count, Path(folder), make_case("gcn").packed)
        except AssertionError as error:
            print(error)
            lost = 1
    record(
        Result(
            "S9",
            "No acknowledged update is lost",
            f"{count} processes killed in calls of the system while they updated a session with a "
            f"log: {'some' if lost else 'no'} acknowledged update lost",
            count,
            lost,
            not lost and count >= 100,
            "" if count >= 100 else "fewer than 100 kills",
        ),
        started,
    )


if __name__ == "__main__":
    main()
