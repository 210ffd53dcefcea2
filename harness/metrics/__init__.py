"""Figures over two pictures or latents, one file each; see :class:`harness.plugins.Metric`."""
