"""A folder of tables of one's own: nodes, edges, and graphs where there are many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nodebits.data.own.options import SUFFIXES
from nodebits.data.sources.base import Request, Source, register_source
from nodebits.data.sources.own_files import place_of

if TYPE_CHECKING:
    from nodebits.data.base import Dataset


@register_source("folder")
class TableFolder(Source):
    """FOLDER with nodes and edges, and graphs if there are many, each .csv or .parquet."""

    own = True

    def find(self, name: str, root: Path | None) -> str | None:
        """Returns the folder's name where it holds nodes or edges; a bare name is below root."""
        folder = place_of(name, root)
        bare = Path(name).name == name and (root is None or folder != root / name)
        files = [folder / f"{kind}{suffix}" for kind in ("nodes", "edges") for suffix in SUFFIXES]
        found = any(file.is_file() for file in files)
        return None if (bare and not Path(name).is_dir()) or not found else folder.resolve().name

    def load(self, request: Request) -> Dataset:
        """Reads the tables; see ``folder_parts`` and ``build`` for what is checked."""
        from nodebits.data.own.build import build
        from nodebits.data.own.folder import folder_parts

        folder = place_of(request.name, request.root)
        return build(folder, folder_parts(folder, request), request)

    def names(self) -> dict[str, str]:
        """The form of the name."""
        return {
            "./FOLDER": "nodes (features, label, split if it has one), edges (source, target), "
            "graphs (label) if there are many, each .csv or .parquet"
        }
