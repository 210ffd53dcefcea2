"""Diffusion engines, one file each; see :class:`harness.plugins.Engine`."""
