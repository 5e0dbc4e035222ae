"""The operators, by subject. A new one is a function here; the backends find it by its name."""
