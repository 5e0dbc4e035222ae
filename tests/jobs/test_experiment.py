"""What one run trains its quantized model with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nodebits.data import load_dataset
from nodebits.jobs.experiment import Experiment, Trained
from nodebits.methods import make_config
from nodebits.models import ModelSpec
from nodebits.tasks import Metrics
from nodebits.train import FitConfig


@pytest.mark.parametrize(
    ("bits", "options", "expected"),
    [
        (1, {}, 0.1),
        (2, {}, 0.4),
        (1, {"dropout": 0.3}, 0.3),
        (1, {"preset": "published"}, 0.4),
    ],
)
def test_dropout_is_low_at_one_bit(bits: int, options: dict[str, Any], expected: float) -> None:
    data = load_dataset("digits")
    spec = ModelSpec("gcn", data.num_features, 4, data.num_classes)
    experiment = Experiment(data, spec, quantized_dropout=0.4)
    model = experiment.new_model(0)
    logits = torch.zeros(data.data.num_nodes, data.num_classes)
    nothing = Metrics("accuracy", 0.0, 0.0, 1)
    start = Trained(model, logits, nothing, nothing, None)
    trained = experiment.quantize(
        start,
        make_config("uniform", bits, **options),
        FitConfig(epochs=1, progress=False),
        warm_start=True,
    )
    found = {m.p for m in trained.model.modules() if isinstance(m, nn.Dropout)}
    assert found == {expected}
