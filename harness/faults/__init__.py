"""Planted bugs, one file each; see :class:`harness.types.Fault`."""
