"""Measurement: timing, bytes, environment; the quantize job and its report."""
