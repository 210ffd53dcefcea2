"""Fuzzing: matrices are drawn until one fails, and the smallest that fails is kept."""
