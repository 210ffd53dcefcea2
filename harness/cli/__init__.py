"""The command line: one file for each command, with its arguments and what it does.

Modules of commands import the rest of the package when they are called, so that ``--help`` is quick.
"""
