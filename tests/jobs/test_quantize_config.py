"""What a job trains with follows from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodebits.jobs.quantize_config import JobConfig
from nodebits.train import find_recipe


def test_the_rate_of_a_job_follows_its_width_and_start() -> None:
    recipe = find_recipe("gin", "graph")

    def rate(**options: Any) -> float:
        config = JobConfig(out=Path("out"), dataset="PROTEINS", model="gin", **options)
        return config.quantized_fit(recipe, 0, "graph").lr

    assert rate(bits=4) == rate(bits=4, seeds=2) < rate(bits=2) == rate(bits=4, warm_start=False)
    assert rate(bits=4, lr=0.02) == 0.02
    assert rate(method="degree-quant", bits=4, preset="published") == 0.001
