"""Which accounting gives A2Q's published speedups over INT4? Prints the table of docs/a2q.md.

Two-layer GCNs of 16 hidden columns at the published mean hidden width, rows of one and two bits.

    python benchmarks/a2q_accountings.py
"""

from __future__ import annotations

import dataclasses

from accelerator import PUBLISHED, Phase, read_accelerator, simulate

# Nodes, edges, classes, mean hidden width; published speedup.
GRAPHS = {"Cora": (2708, 10_556, 7, 1.70, 2.00), "CiteSeer": (3327, 9_104, 6, 1.87, 1.91)}
HIDDEN = 16


def speedup(graph: str, edges_per_cycle: int, loops: bool = True, sums: bool = True) -> float:
    """Cycles at four bits over cycles at the mean width; the raw product is left out."""
    nodes, edges, classes, mean, _ = GRAPHS[graph]
    edges += nodes if loops else 0
    twos = round((mean - 1) * nodes)
    fours = (0, 0, 0, nodes, 0, 0, 0, 0)
    hidden = (nodes - twos, twos, 0, 0, 0, 0, 0, 0)
    phases = [Phase("convs.1.lin.input", "product", hidden, HIDDEN, classes, weight_bits=4)]
    if sums:
        phases += [
            Phase("convs.0.message", "sum", fours, HIDDEN, HIDDEN, edges=edges),
            Phase("convs.1.message", "sum", fours, classes, classes, edges=edges),
        ]
    machine = dataclasses.replace(read_accelerator(PUBLISHED), sum_edges=edges_per_cycle)
    return float(simulate(phases, machine)["speedup"]["int4"])


def main() -> None:
    """Prints the table."""
    lines = ["| accounting | Cora | CiteSeer |", "|---|---|---|"]
    lines.append("| published | " + " | ".join(f"{g[-1]:.2f}" for g in GRAPHS.values()) + " |")
    cases: dict[str, tuple[int, bool, bool]] = {"hidden product only": (1, True, False)}
    for count in (1, 4, 8, 16, 32):
        cases[f"hidden product and both sums, {count} edges a cycle"] = (count, True, True)
    cases["16 edges a cycle, no self loops"] = (16, False, True)
    for name, case in cases.items():
        lines.append(f"| {name} | " + " | ".join(f"{speedup(g, *case):.2f}" for g in GRAPHS) + " |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
