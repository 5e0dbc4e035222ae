"""What the site adds to the pages of this folder.

Pages and files elsewhere in the repository that a page links to become part of the site, so no
link leaves it. Notebooks become pages. A public name without an entry in the API pages is a fault,
which ends a strict build.
"""

from __future__ import annotations

import html
import importlib
import json
import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = "docs"
# Modules whose public names must be in the pages of api/.
DOCUMENTED = (
    "nodebits",
    "nodebits.core.errors",
    "nodebits.data",
    "nodebits.graph",
    "nodebits.lite",
    "nodebits.methods",
    "nodebits.models",
    "nodebits.runtime",
    "nodebits.search",
    "nodebits.tasks",
    "nodebits.train",
)
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_log = logging.getLogger("mkdocs.hooks.nodebits")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds notebooks, and what pages link to outside of this folder."""
    for notebook in sorted((REPOSITORY / DOCS / "notebooks").glob("*.ipynb")):
        page = notebook_page(notebook.read_text("utf-8"))
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=page))
    waiting = [file for file in files if file.src_uri.endswith(".md")]
    for page in _pages(config.nav):
        if files.get_file_from_path(page) is None and (REPOSITORY / page).is_file():
            waiting.append(_add(files, config, page))
    while waiting:
        page = waiting.pop()
        for _, target, _ in _links(page.content_string):
            place = repository_path(page.src_uri, target)
            uri = site_uri(place)
            inside = place == DOCS or place.startswith(DOCS + "/")
            if inside or files.get_file_from_path(uri) or not (REPOSITORY / uri).is_file():
                continue
            added = _add(files, config, uri)
            if uri.endswith(".md"):
                waiting.append(added)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between places of the repository into links between places of the site."""
    own = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        target = match[2]
        if "://" in target or target.startswith(("mailto:", "/")):
            return match[0]
        uri = site_uri(repository_path(own, target))
        relative = posixpath.relpath(uri, posixpath.dirname(own) or ".")
        return match[1] + relative + match[3]

    return "\n".join(_LINK.sub(moved, line) if prose else line for line, prose in _lines(markdown))


def on_env(env: Any, config: MkDocsConfig, files: Files) -> Any:
    """Says which public names have no entry."""
    listed = set()
    for path in sorted((REPOSITORY / DOCS / "api").glob("*.md")):
        listed |= set(re.findall(r"^::: (\S+)$", path.read_text("utf-8"), re.MULTILINE))
    for name in undocumented(listed):
        _log.warning("%s is public and has no entry in docs/api", name)
    return env


def undocumented(listed: set[str]) -> list[str]:
    """The public names that no entry of ``listed`` stands for, by the object that they are."""
    there = {id(_object(name)) for name in listed}
    missing = []
    for module_name in DOCUMENTED:
        module = importlib.import_module(module_name)
        for name in _public(module):
            found = getattr(module, name)
            if callable(found) and id(found) not in there:  # constants say what they are
                missing.append(f"{module_name}.{name}")
    return missing


def _public(module: Any) -> list[str]:
    names = getattr(module, "__all__", None)  # errors have none: all of their module are public
    if names is not None:
        return list(names)
    here = ((name, value) for name, value in vars(module).items() if isinstance(value, type))
    return [n for n, v in here if not n.startswith("_") and v.__module__ == module.__name__]


def _object(path: str) -> Any:
    """What a dotted path names."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(path)


def repository_path(page: str, target: str) -> str:
    """Where a link of a page leads, from the root of the repository."""
    here = (REPOSITORY / DOCS / page).exists() or page.startswith("notebooks/")
    folder = posixpath.dirname(f"{DOCS}/{page}" if here else page)
    return posixpath.normpath(posixpath.join(folder, target))


def site_uri(place: str) -> str:
    """Where the site has a file or folder of the repository."""
    if place.startswith(DOCS + "/"):
        place = place.removeprefix(DOCS + "/")
    folder = REPOSITORY / place
    return f"{place}/README.md" if folder.is_dir() and (folder / "README.md").is_file() else place


def _pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []:
        yield from _pages(item)


def _add(files: Files, config: MkDocsConfig, uri: str) -> File:
    file = File.generated(config, uri, abs_src_path=str(REPOSITORY / uri))
    files.append(file)
    return file


def _links(markdown: str) -> Iterator[tuple[str, str, str]]:
    for line, prose in _lines(markdown):
        if prose:
            for match in _LINK.finditer(line):
                if "://" not in match[2]:
                    yield match[1], match[2], match[3]


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """The lines of a page, and whether each is outside of fenced code."""
    fenced = False
    for line in markdown.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            yield line, False
        else:
            yield line, not fenced


def notebook_page(text: str) -> str:
    """A notebook as Markdown: cells in order, with the text and pictures that they gave."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/svg+xml" in data:
                parts.append(f'<div class="output">{"".join(data["image/svg+xml"])}</div>')
            elif "image/png" in data:
                picture = "".join(data["image/png"]).strip()
                parts.append(f'<img class="output" alt="" src="data:image/png;base64,{picture}">')
            else:
                shown = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f'<pre class="output">{html.escape(shown.rstrip())}</pre>')
    return "\n\n".join(parts) + "\n"
