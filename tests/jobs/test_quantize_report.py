"""The report of a job as JSON."""

from __future__ import annotations

import pytest

from nodebits.jobs.quantize_report import to_json_bytes


def test_report_refuses_what_json_lacks():
    with pytest.raises(ValueError):
        to_json_bytes({"speedup": float("nan")})
