"""The ``nodebits`` command."""
