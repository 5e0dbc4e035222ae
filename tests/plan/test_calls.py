"""A forward that runs as a plan makes few Python calls of this library."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from packed_models import make_case


def test_ten_calls() -> None:
    case = make_case("gin", task="graph")
    args = (case.x, case.edge_index, case.extra["batch"])
    case.packed.plan(*args)
    for _ in range(70):  # the first calls look at the use of codes
        case.packed.predict(*args)
    calls: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and "nodebits" in frame.f_code.co_filename.split("/"):
            calls.append(frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else "")

    sys.setprofile(note)
    try:
        case.packed.predict(*args)
    finally:
        sys.setprofile(None)
    assert 0 < len(calls) <= 10, calls
