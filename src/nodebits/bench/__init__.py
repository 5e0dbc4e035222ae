"""Speed and memory: timing, environment, and the comparisons with torch and PyG."""
