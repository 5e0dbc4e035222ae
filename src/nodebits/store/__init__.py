"""Packed features in files of their own: written in one stream, read as a mapped file."""
