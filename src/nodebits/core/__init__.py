"""Arithmetic of quantization: rounding, ranges, packing. Imports torch only."""
