"""Judging: samples to figures, figures to verdicts."""
