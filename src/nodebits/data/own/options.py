"""What a user may say about data of their own; nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodebits.core.errors import ConfigError

SPLITS = ("train", "val", "test")
_RATIOS = re.compile(r"(\d*\.?\d+)/(\d*\.?\d+)(?:/(\d*\.?\d+))?")
_DEFAULT = (0.6, 0.2, 0.2)


# Suffixes of tables; asked for before numpy is imported.
SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class OwnOptions:
    """Roles of columns, where they are not guessed.

    Attributes:
        target: Columns, or the array or field, to predict.
        ignore: Columns that are left out.
        schema: How a model's training data were read: columns, categories and string labels, so
            that new data become the same features.
        asks: Whether these are data to predict about, not to learn from: targets and splits are
            not needed then.
    """

    target: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    asks: bool = False


@dataclass(frozen=True)
class SplitRule:
    """How rows are divided.

    Attributes:
        kind: ``default``, ``seed``, ``ratio``, ``column``, ``time`` or ``masks``.
        column: Of the kinds ``column`` and ``time``.
        shares: Of training, validation and test.
        seed: Of a draw.
    """

    kind: str = "default"
    column: str = ""
    shares: tuple[float, float, float] = field(default=_DEFAULT)
    seed: int = 0


def split_rule(text: int | str | None, seed: int | None = None) -> SplitRule:
    """Reads ``--split``.

    Args:
        text: None; a seed; ``0.8/0.1/0.1``; ``column:NAME``; ``time:NAME``, also with shares as in
            ``time:NAME:0.8/0.1/0.1``; or ``masks``.
        seed: Of a draw; None is 0.

    Raises:
        ConfigError: It is none of these, or shares are no shares.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if seed not in (None, text):
            raise ConfigError(f"split is the seed {text}, and seed is {seed}: give one of them")
        if text < 0:
            raise ConfigError(f"split is {text}: a seed is 0 or more")
        return SplitRule("seed", seed=text)
    seed = 0 if seed is None else seed
    if text is None:
        return SplitRule(seed=seed)
    if not isinstance(text, str):
        raise ConfigError(f"split is {text!r}: a seed, or how rows are divided, as text")
    if text == "masks":
        return SplitRule("masks")
    kind, colon, rest = text.partition(":")
    if kind in ("column", "time") and colon and rest:
        column, _, shares = rest.partition(":")
        if kind == "time":
            return SplitRule("time", column, _shares(shares) if shares else _DEFAULT)
        return SplitRule("column", rest)
    if _RATIOS.fullmatch(text):
        return SplitRule("ratio", shares=_shares(text), seed=seed)
    raise ConfigError(
        f"split is {text!r}: of own data it is a seed such as 3, shares such as 0.8/0.1/0.1, "
        "column:NAME (train, val, test), time:NAME (the latest rows test), or masks"
    )


def _shares(text: str) -> tuple[float, float, float]:
    found = _RATIOS.fullmatch(text)
    if found is None:
        raise ConfigError(f"split has the shares {text!r}: write them as 0.8/0.1/0.1")
    train, val = float(found[1]), float(found[2])
    test = 1.0 - train - val if found[3] is None else float(found[3])
    total = train + val + test
    if min(train, val) <= 0 or test < -1e-9 or total <= 0:
        raise ConfigError(f"split has the shares {text!r}: training and validation need some")
    if abs(total - 1.0) > 1e-6 and abs(total - 100.0) > 1e-4:
        raise ConfigError(f"split has the shares {text!r}, which sum to {total:g}, not to 1")
    return train / total, val / total, max(test, 0.0) / total
