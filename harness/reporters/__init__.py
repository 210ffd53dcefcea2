"""Report formats, one file each; see :class:`harness.plugins.Reporter`."""
