"""A packed model behind HTTP: questions, batches, reloads, metrics."""
