"""Environments: interpreters that engines run in, their names, and what is installed in them."""
