"""Data of the user's own: tables, arrays and PyG objects made data sets."""
