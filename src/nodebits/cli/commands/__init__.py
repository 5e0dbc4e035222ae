"""The commands, one file each: a module defines a function, or a group, of its own name."""
