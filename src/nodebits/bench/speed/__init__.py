"""Speed and memory of the packed operators and models beside what torch and PyG offer."""
