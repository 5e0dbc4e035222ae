"""How codes lie in the fields of packed rows, one file each; :mod:`.base` says what one answers."""
