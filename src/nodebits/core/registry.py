"""Things that are found by name: one file each, listed without being imported.

A file of the registry's folder adds what it defines with a decorator. Commands list names before
torch is imported, which takes seconds, so a listing reads the decorators from the source. Other
packages add theirs through an entry point of the registry's group.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from nodebits.core.errors import ConfigError, UnknownNameError

T = TypeVar("T")
# Names that were nodebits' own once, and the package of examples/ that has them.
_MOVED = dict.fromkeys(
    ("elastic", "smp-adjacency", "smp-laplacian", "QuantElasticConv", "QuantSMPConv"),
    "nodebits-smoothness",
)
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Listed:
    """What is known of an entry that was not imported.

    Attributes:
        name: What users call it.
        summary: First line of its docstring.
        origin: Module that defines it.
        definition: Its class or function, parsed.
    """

    name: str
    summary: str
    origin: str
    definition: ast.ClassDef | ast.FunctionDef | None


class Registry(Generic[T]):
    """Named values of one kind.

    Args:
        kind: What a value is, for messages.
        folder: Folder of the package whose files add values, with slashes; None where values are
            registered by the import of their package, and are not listed before.
        decorator: Name of the decorator that adds one; each text it is given is a name.
    """

    def __init__(self, kind: str, folder: str | None, decorator: str) -> None:
        self.kind, self.folder, self.decorator = kind, folder, decorator
        self.group = f"nodebits.{kind.replace(' ', '_')}s"
        self._values: dict[str, T] = {}

    def add(self, name: str, value: T) -> None:
        """Makes a value known; a later one of that name replaces it."""
        self._values[name] = value

    def names(self) -> list[str]:
        """Names of all values, sorted."""
        return sorted({*self._values, *self.listed, *self._entry_points})

    def get(self, name: str) -> T:
        """Returns a value, importing the file or the package that adds it.

        Raises:
            UnknownNameError: There is no such name.
            ConfigError: Another package's entry point cannot be loaded, or takes a name of ours.
        """
        self._refuse_taken(name)
        if name not in self._values:
            if name in self._entry_points:
                self._load(self._entry_points[name])
            elif name in self.listed:
                importlib.import_module(self.listed[name].origin)
            else:
                raise self.unknown(name)
        return self._values[name]

    @property
    def definitions(self) -> dict[str, str]:
        """The name of every entry by that of its class or function, other packages' too."""
        return {one.definition.name: one.name for one in self.list() if one.definition}

    def unknown(self, name: str) -> UnknownNameError:
        """The error for a name that is not there."""
        if name in _MOVED:
            return UnknownNameError(
                f"{self.kind} {name!r} is part of {_MOVED[name]}, which is not installed: "
                f"pip install examples/{_MOVED[name]}, a folder of nodebits' sources"
            )
        return UnknownNameError.for_name(self.kind, name, self.names())

    def load_entry_points(self) -> None:
        """Registers what other packages add, for registries that are looked up by value.

        Raises:
            ConfigError: An entry point cannot be loaded, or takes a name of ours.
        """
        for name, point in self._entry_points.items():
            self._refuse_taken(name)
            if name not in self._values:
                self._load(point)

    def list(self) -> Iterator[Listed]:
        """Yields all entries in the order of their names, other packages' too."""
        entries = self.listed | {n: self._describe(p) for n, p in self._entry_points.items()}
        yield from (entries[name] for name in sorted(entries))

    @cached_property
    def listed(self) -> dict[str, Listed]:
        """What the files of the folder add."""
        if self.folder is None:
            return {}
        package = "nodebits." + self.folder.replace("/", ".")
        found: dict[str, Listed] = {}
        for path in sorted((_ROOT / self.folder).glob("*.py")):
            text = path.read_text(encoding="utf-8")
            if f"@{self.decorator}(" in text:
                for name, node in _decorated(ast.parse(text), self.decorator):
                    found[name] = Listed(name, _summary(node), f"{package}.{path.stem}", node)
        return found

    @cached_property
    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        return {point.name: point for point in _installed().select(group=self.group)}

    def _refuse_taken(self, name: str) -> None:
        home = self._values[name].__module__ if self.folder is None and name in self._values else ""
        own = name in self.listed or home.startswith("nodebits.")
        if own and name in self._entry_points:
            raise ConfigError(
                f"{self.kind} {name!r} is nodebits' own and also an entry point "
                f"({self._entry_points[name].value}): rename that, or uninstall its package"
            )

    def _load(self, point: metadata.EntryPoint) -> None:
        try:
            point.load()
        except Exception as error:
            raise ConfigError(
                f"{self.kind} {point.name!r}: its entry point {point.value} cannot be loaded "
                f"({type(error).__name__}: {error}); mend or uninstall its package"
            ) from error
        if point.name not in self._values:
            raise ConfigError(
                f"{self.kind} {point.name!r}: {point.value} was imported and does not register it; "
                f"decorate what it defines with @{self.decorator}, under that name"
            )

    def _describe(self, point: metadata.EntryPoint) -> Listed:
        source = _source_of(point.module)
        node = None
        if source is not None:
            body = ast.parse(source.read_text(encoding="utf-8")).body
            node = next(
                (
                    one
                    for one in body
                    if isinstance(one, ast.ClassDef | ast.FunctionDef) and one.name == point.attr
                ),
                None,
            )
        return Listed(point.name, "" if node is None else _summary(node), point.module, node)


@cache
def _installed() -> Any:
    """Entry points of all packages: reading them takes a fifth of a second, for any group."""
    return metadata.entry_points()


def _decorated(
    tree: ast.Module, decorator: str
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == decorator:
                for name in call.args:
                    # Others are what the name stands for.
                    if isinstance(name, ast.Constant) and isinstance(name.value, str):
                        yield name.value, node


def _summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _source_of(module: str) -> Path | None:
    """The file of a module whose top package is not imported for it."""
    top, *parts = module.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin)
    if parts:
        place = place.parent.joinpath(*parts)
        place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return place if place.is_file() else None


# What the values are, only the packages that define them can say; their functions are typed.
CODINGS: Registry[Any] = Registry("coding", "core/codings", "register_coding")
LAYERS: Registry[Any] = Registry("layer", None, "register_layer")
METHODS: Registry[Any] = Registry("method", "methods", "register_method")
MODELS: Registry[Any] = Registry("model", "models", "register_model")
TASKS: Registry[Any] = Registry("task", "tasks", "register_task")
SOURCES: Registry[Any] = Registry("source", "data/sources", "register_source")
