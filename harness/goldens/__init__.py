"""Golden outputs: format, stores, pins, use in a run, verification and approval."""
