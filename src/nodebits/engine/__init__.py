"""The frozen forward: rows, what they are made and read with, and results that wait."""
