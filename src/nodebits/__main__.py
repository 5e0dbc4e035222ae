"""``python -m nodebits`` is the ``nodebits`` command."""

from nodebits.cli import main

if __name__ == "__main__":
    main()
