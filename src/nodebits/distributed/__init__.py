"""Packed models on graphs whose nodes belong to several processes."""
