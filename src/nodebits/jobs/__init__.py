"""What the commands do from end to end: quantize, search, and the experiment that both run."""
