"""Golden outputs: one golden, the stores that keep them, those of a run, and their approval."""
