"""Makes matrix files collectable in this repository; elsewhere the entry point does. pytester tests the plugin."""

pytest_plugins = ["harness.pytest_plugin", "pytester"]
