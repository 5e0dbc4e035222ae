"""The parts of nodebits that run without torch; import them as ``nodebits.lite``."""

__version__ = "0.1.0"
