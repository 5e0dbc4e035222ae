"""What the pages must cover: every error has its section, every page is in the navigation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
_CLASS = re.compile(r"^class ([A-Z]\w*)\((?:.*Error|.*Warning)\b.*\):", re.MULTILINE)
KINDS = sorted(
    name
    for path in (REPOSITORY / "src" / "nodebits").rglob("*.py")
    for name in _CLASS.findall(path.read_text(encoding="utf-8"))
)
# Those that users catch, not those of commands and servers alone.
PUBLIC = sorted(
    name
    for folder in ("core", "train")
    for name in _CLASS.findall(
        (REPOSITORY / "src" / "nodebits" / folder / "errors.py").read_text(encoding="utf-8")
    )
)


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """Sections of the page on troubles, by their headings."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    parts = re.split(r"^### (.*)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_an_error_has_a_section(name: str, sections: dict[str, str]) -> None:
    assert len(sections[name].split()) >= 8


@pytest.mark.parametrize("name", PUBLIC)
def test_an_error_has_an_entry_in_the_api(name: str) -> None:
    assert re.search(
        rf"^::: nodebits\.\S*\.{name}$", (DOCS / "api" / "errors.md").read_text(), re.M
    )


def test_no_section_is_of_an_error_that_is_gone(sections: dict[str, str]) -> None:
    named = {title for title in sections if title.endswith(("Error", "Warning", "Refused"))}
    assert named <= set(KINDS)


def test_the_navigation_has_every_page() -> None:
    listed = set(re.findall(r"[\w./-]+\.md", (REPOSITORY / "mkdocs.yml").read_text("utf-8")))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    pages |= {f"notebooks/{path.stem}.md" for path in DOCS.rglob("*.ipynb")}
    assert pages <= listed
    # Others are of the repository's root, where the site's hook finds them.
    assert all((REPOSITORY / name).is_file() for name in listed - pages)
