"""Whole path from a matrix to a report."""
