"""Does a diffusion engine draw the same picture when its sequence is split? This package finds out."""

__version__ = "0.1.0"
