import os

# One thread: sums then come out the same every time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
