"""Makes matrix files collectable in this repository; elsewhere the entry point does."""

pytest_plugins = ["harness.pytest_plugin"]
