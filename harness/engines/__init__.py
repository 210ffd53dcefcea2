"""Diffusion engines, one file each; see :class:`harness.types.Engine`."""
