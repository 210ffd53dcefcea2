"""Execution: runs onto groups of rank processes, on this machine or on those of a Ray cluster."""
