"""Docstrings as Markdown: roles of Sphinx become code, and ``::`` before a block a colon."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_DOUBLE = re.compile(r"``([^`\n]+)``")
_BLOCK = re.compile(r"::(?=\n\n +)")


def markdown(docstring: str) -> str:
    """Returns a docstring with what only Sphinx reads in the words of Markdown."""
    text = _ROLE.sub(r"`\1`", docstring)
    return _BLOCK.sub(":", _DOUBLE.sub(r"`\1`", text))


class Docstrings(Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Takes one object of the package."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
