"""Fixtures of the tests of the kernels in Triton's language."""

from __future__ import annotations

import pytest


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a few edges count as long ones."""
    from nodebits.ops.backends.triton import sums

    monkeypatch.setattr(sums, "LONG_ROW", 7)
