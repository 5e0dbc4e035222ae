from __future__ import annotations

import json

from nodebits.bench.environment import describe_environment
from nodebits.bench.timing import measure_interleaved


def test_rounds_are_interleaved_and_warmup_is_not_counted():
    calls: list[str] = []
    result = measure_interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1
    )
    # Short calls follow one of their own from the second round that counts.
    assert calls == ["a", "b"] * 2 + ["a", "a", "b", "b"] * 2
    assert result["a"].repeats == 3
    assert 0 <= result["a"].minimum <= result["a"].median <= result["a"].p90


def test_environment_is_json_without_host_names():
    import socket

    text = json.dumps(describe_environment())
    assert "torch" in text and socket.gethostname() not in text
