"""The whole path, from a matrix to a report."""
