"""A ``.pt`` file of one's own: what torch saved of PyG's objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nodebits.core.errors import DataNotFoundError
from nodebits.data.sources.base import Request, Source, register_source
from nodebits.data.sources.own_files import place_of

if TYPE_CHECKING:
    from nodebits.data.base import Dataset


@register_source("pt")
class PtFile(Source):
    """PATH.pt with a Data, a HeteroData, a list of Data, or a saved data set; nothing is run."""

    own = True

    def find(self, name: str, root: Path | None) -> str | None:
        """Returns the file's name, for a name that ends in ``.pt`` or ``.pth``."""
        return Path(name).name if name.lower().endswith((".pt", ".pth")) else None

    def load(self, request: Request) -> Dataset:
        """Reads the file; see ``pyg_dataset`` for what is checked."""
        from nodebits.data.own.pyg_objects import pyg_dataset, read_pt

        path = place_of(request.name, request.root)
        if not path.is_file():
            raise DataNotFoundError(f"there is no data file {path}")
        return pyg_dataset(path, read_pt(path), request)

    def names(self) -> dict[str, str]:
        """The form of the name."""
        return {"PATH.pt": "a PyG Data, HeteroData, list of Data, or saved data set, by torch.save"}
