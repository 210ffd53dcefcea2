"""Planted bugs, one file each; see :class:`harness.plugins.Fault`."""
