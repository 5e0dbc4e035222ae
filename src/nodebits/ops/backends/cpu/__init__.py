"""Compiled kernels: the extension module and its levels, and the operators that call it."""
