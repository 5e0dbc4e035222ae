"""``nodebits.lite`` where nodebits itself is not installed.

Beside nodebits this file is never read: its package ``nodebits/lite`` comes first. So the two
distributions share no file, and each can be installed or removed without the other.
"""

import sys

from nodebits_lite.lite import *  # noqa: F403  for type checkers; the rest is for the interpreter

for _name, _module in list(sys.modules.items()):
    if _name == "nodebits_lite.lite" or _name.startswith("nodebits_lite.lite."):
        sys.modules[_name.replace("nodebits_lite", "nodebits", 1)] = _module
