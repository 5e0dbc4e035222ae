from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are not looked at here: calls need not wait for threads of the call before."""
    monkeypatch.setattr("nodebits.bench.timing._SETTLING", 0.0)
