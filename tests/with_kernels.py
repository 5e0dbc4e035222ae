"""Runs a program on another build of the compiled kernels: ``make sanitize`` uses it.

python tests/with_kernels.py PATH_OF_EXTENSION (SCRIPT | -m MODULE) [arguments]
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Puts the extension where ``nodebits`` looks for its own, then runs the program."""
    path, program, *arguments = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("nodebits._kernels", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["nodebits._kernels"] = module
    sys.argv[1:] = arguments
    if program == "-m":
        sys.argv[1:] = arguments[1:]
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = program
        sys.path[0] = str(Path(program).resolve().parent)
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
