"""Published figures, for a leaderboard: what a paper reports, and which epoch it took them from.

``selected`` is what the released code does, where one was released.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One figure of a paper.

    Attributes:
        dataset: Data set.
        model: Architecture, by our name.
        method: Method, by our name.
        bits: Average width that the paper states, its own count.
        figure: Mean of the metric; a share as such, not in percent.
        spread: Standard deviation, None where none is given.
        selected: Split that chose the epoch.
        source: The paper.
    """

    dataset: str
    model: str
    method: str
    bits: float
    figure: float
    spread: float | None
    selected: str
    source: str


_DQ, _A2Q, _MIXQ = "Degree-Quant, ICLR 2021", "A2Q, ICLR 2023", "MixQ-GNN, 2025"


def _percent(rows: str, selected: str, source: str) -> list[Published]:
    """Reads lines of ``dataset model method bits mean spread``, figures in percent."""
    found = []
    for line in rows.strip().splitlines():
        dataset, model, method, bits, mean, spread = line.split()
        found.append(
            Published(
                dataset,
                model,
                method,
                float(bits),
                float(mean) / 100,
                float(spread) / 100,
                selected,
                source,
            )
        )
    return found


PUBLISHED = [
    # Mean absolute errors, not shares.
    Published("ZINC", "gcn", "degree-quant", 8, 0.434, 0.009, "validation", _DQ),
    Published("ZINC", "gcn", "degree-quant", 4, 0.536, 0.011, "validation", _DQ),
    Published("ZINC", "gat", "degree-quant", 8, 0.456, 0.006, "validation", _DQ),
    Published("ZINC", "gat", "degree-quant", 4, 0.520, 0.021, "validation", _DQ),
    Published("ZINC", "gin", "degree-quant", 8, 0.357, 0.014, "validation", _DQ),
    Published("ZINC", "gin", "degree-quant", 4, 0.431, 0.012, "validation", _DQ),
    *_percent(
        """
        Cora gcn degree-quant 8 81.7 0.7
        Cora gcn degree-quant 4 78.3 1.7
        Cora gat degree-quant 8 82.7 0.7
        Cora gat degree-quant 4 71.2 2.9
        Cora gin degree-quant 8 78.7 1.4
        Cora gin degree-quant 4 69.9 3.4
        CiteSeer gcn degree-quant 8 71.0 0.9
        CiteSeer gcn degree-quant 4 66.9 2.4
        CiteSeer gat degree-quant 8 71.6 1.0
        CiteSeer gat degree-quant 4 67.6 1.5
        CiteSeer gin degree-quant 8 67.5 1.4
        CiteSeer gin degree-quant 4 60.8 2.1
        Cora gcn uniform 8 81.0 0.7
        Cora gcn uniform 4 77.2 5.0
        Cora gat uniform 8 81.9 0.7
        Cora gat uniform 4 55.6 5.4
        Cora gin uniform 8 75.6 1.2
        Cora gin uniform 4 42.5 4.5
        CiteSeer gcn uniform 8 71.3 1.0
        CiteSeer gcn uniform 4 64.1 4.1
        REDDIT-BINARY gin degree-quant 8 91.8 2.3
        REDDIT-BINARY gin degree-quant 4 81.3 4.4
        MNIST gcn degree-quant 8 90.9 0.2
        MNIST gcn degree-quant 4 84.4 1.3
        MNIST gat degree-quant 8 95.8 0.4
        MNIST gat degree-quant 4 93.1 0.3
        MNIST gin degree-quant 8 96.6 0.1
        MNIST gin degree-quant 4 95.5 0.4
        CIFAR10 gcn degree-quant 8 56.3 0.1
        CIFAR10 gcn degree-quant 4 51.1 0.7
        CIFAR10 gat degree-quant 8 67.7 0.5
        CIFAR10 gat degree-quant 4 56.5 0.6
        CIFAR10 gin degree-quant 8 55.5 0.6
        CIFAR10 gin degree-quant 4 50.7 1.6
        """,
        "validation",
        _DQ,
    ),
    *_percent(
        """
        Cora gcn a2q 1.70 80.9 0.6
        Cora gat a2q 2.03 82.6 0.6
        CiteSeer gcn a2q 1.87 70.6 1.1
        CiteSeer gin a2q 2.54 65.1 1.7
        PubMed gat a2q 2.12 78.8 0.4
        """,
        "test",
        _A2Q,
    ),
    *_percent(
        """
        Cora gcn mixq 7.69 81.58 0.75
        Cora gcn mixq 5.82 77.72 2.85
        Cora gcn mixq 3.84 68.68 2.72
        CiteSeer gcn mixq 6.84 68.97 1.11
        CiteSeer gcn mixq 4.49 66.52 1.81
        PubMed gcn mixq 7.36 78.33 0.24
        PubMed gcn mixq 5.49 77.32 0.69
        """,
        "validation",
        _MIXQ,
    ),
]


def published_for(dataset: str, model: str) -> list[Published]:
    """Returns what papers report of one model on one data set."""
    return [one for one in PUBLISHED if (one.dataset, one.model) == (dataset, model)]
