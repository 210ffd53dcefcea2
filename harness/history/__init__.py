"""Night after night: what a report comes to in one line, what changed since the last one, and since when.

``night`` makes the line, ``files`` keeps lines and finds reports, ``changes`` compares nights, ``page`` draws them.
"""
