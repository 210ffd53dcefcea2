"""The programs inside an engine's interpreter: forkserver, rank, and the probe."""
