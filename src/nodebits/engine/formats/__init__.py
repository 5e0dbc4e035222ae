"""Formats of rows: one file each. A new one registers itself and is imported by its folder."""

import importlib
import pkgutil

from nodebits.engine.formats.base import Format, Sample, Summands, formats, register_format

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Format", "Sample", "Summands", "formats", "register_format"]
