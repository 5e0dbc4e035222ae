"""What rounding alone costs normally distributed values: a bound on the error of any site.

    python benchmarks/rounding.py

Relative error (root mean square) of the best uniform codes with one step for all values, found by a
search over steps; of codes with a step per row of 8 or 128 values; and the least error that any
code of as many bits per value can have, ``2 ** -bits`` (the rate-distortion function of a normal
source, Shannon 1959). A million values, seed 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

VALUES = 1 << 20


def error(x: Tensor, step: Tensor | float, bits: int) -> float:
    """Of codes around the middle of the range, relative to ``x``."""
    half = 1 << (bits - 1)
    codes = torch.round(x / step).clamp(-half, half - 1)
    return float((codes * step - x).norm() / x.norm())


def main() -> None:
    """Prints the table."""
    torch.manual_seed(0)
    x = torch.randn(VALUES)
    print("| bits | one step | a step per 8 | a step per 128 | any code |\n|---|---|---|---|---|")
    for bits in (8, 6, 4, 3, 2):
        top = (1 << (bits - 1)) - 1
        one = min(error(x, limit / top, bits) for limit in torch.arange(0.8, 5.5, 0.05).tolist())
        rows = [
            error(part, part.abs().amax(1, keepdim=True) / top, bits)
            for part in (x.view(-1, 8), x.view(-1, 128))
        ]
        shown = " | ".join(f"{100 * e:.2f} %" for e in (one, *rows, 2.0**-bits))
        print(f"| {bits} | {shown} |")


if __name__ == "__main__":
    main()
