"""Graphs of superpixels, made of images once and kept in the cache."""
