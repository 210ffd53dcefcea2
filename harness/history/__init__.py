"""Run history of a matrix: one line per run, changes since the run before, and trend pages.

``entry`` reduces a report to a line, ``files`` reads and appends lines, ``changes`` compares runs, ``words`` and
``page`` present them.
"""
