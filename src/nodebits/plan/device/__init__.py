"""A plan on a device other than the CPU: its steps through the operators, and CUDA graphs."""
