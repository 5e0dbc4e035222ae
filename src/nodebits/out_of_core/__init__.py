"""Packed models on graphs that are larger than memory."""
