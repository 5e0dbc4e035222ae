"""Runs pytest on another build of the compiled kernels: ``make sanitize`` uses it.

python tests/with_kernels.py PATH_OF_EXTENSION [pytest arguments]
"""

from __future__ import annotations

import importlib.util
import sys

import pytest


def main() -> int:
    """Puts the extension where ``nodebits`` looks for its own, then runs the tests."""
    path, *arguments = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("nodebits._kernels", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["nodebits._kernels"] = module
    return int(pytest.main(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
