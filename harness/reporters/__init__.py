"""Report formats, one file each; see :class:`harness.types.Reporter`."""
