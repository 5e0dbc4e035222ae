"""A report as one self-contained page: no font, no network, and a script only to sort a table.

The text of a page is a template in ``templates/``; whatever a value holds is escaped there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nodebits.report.words import (
    count_of,
    drop_unit,
    figure,
    float_layer_list,
    human_bytes,
    letter,
    spread_of,
    title_of,
)


def render(template: str, **values: Any) -> str:
    """Fills a template.

    Args:
        template: Its name in ``templates/``.
        **values: What it shows.

    Raises:
        jinja2.UndefinedError: It asks for a value that is not there.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nodebits.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "bytes": human_bytes,
        "count_of": count_of,
        "drop_unit": drop_unit,
        "figure": figure,
        "letter": letter,
        "float_layers": float_layer_list,
        "spread": spread_of,
        "title_of": title_of,
        "percent": lambda share, digits=2: f"{100 * share:.{digits}f}",
    }
    return environment
