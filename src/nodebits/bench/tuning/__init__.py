"""Tiles of kernels, measured on the card that will run them."""
