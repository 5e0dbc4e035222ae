"""The walk counts frames and instances of nodebits, and nothing else."""

from __future__ import annotations

import json

import walk
from nodebits.core.registry import Listed


def test_counts_what_nodebits_does() -> None:
    found = walk.walk(lambda: [Listed("a", "b", "c", None) for _ in range(3)])
    assert found.wraps == {"Listed": 3}
    assert not walk.walk(lambda: json.dumps({"a": 1})).calls


def test_profile_is_off_afterwards() -> None:
    def fails() -> None:
        raise KeyError

    try:
        walk.walk(fails)
    except KeyError:
        pass
    assert walk.sys.getprofile() is None
