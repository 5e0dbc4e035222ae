"""Packed models on graphs that change."""
