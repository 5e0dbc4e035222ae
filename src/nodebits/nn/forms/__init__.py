"""Integer forms of messages: one file each. A new one registers itself."""

import importlib
import pkgutil

from nodebits.nn.forms.base import Form, Known, Sites, may_have_form, register_form, runs_of

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Form", "Known", "Sites", "may_have_form", "register_form", "runs_of"]
