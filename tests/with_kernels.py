"""Runs pytest, or a module, on another build of the compiled kernels: for the sanitizers.

python tests/with_kernels.py PATH_OF_EXTENSION [pytest arguments]
python tests/with_kernels.py PATH_OF_EXTENSION -m MODULE [its arguments]
"""

from __future__ import annotations

import importlib.util
import runpy
import sys

import pytest


def main() -> int:
    """Puts the extension where ``nodebits`` looks for its own, then runs what was asked for."""
    path, *arguments = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("nodebits._kernels", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["nodebits._kernels"] = module
    if arguments[:1] == ["-m"]:
        sys.argv[1:] = arguments[2:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return 0
    return int(pytest.main(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
