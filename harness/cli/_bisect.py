"""Exit codes of ``run --bisect ROW`` for ``git bisect run``.

git takes 0 for good, 125 for a commit that cannot be tested, 1 to 127 else for bad, and ends at 128 and above.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import EXIT_OK, EXIT_VERDICT
from harness.types import Outcome, Row

OPTION = "--bisect"
EXIT_UNTESTED = 125
ENDS_BISECTION = 128


def exit_code(row: Row, bad_error: bool) -> int:
    """Return 0 for a row that passes and 1 for one that fails.

    Parameters
    ----------
    row
        A judged row.
    bad_error
        Whether an error of the engine counts as a failure.
    """
    verdict = row.verdict
    if verdict is None or verdict.infrastructure:
        return EXIT_UNTESTED
    bad = {Outcome.FAIL, *([Outcome.ERROR, Outcome.TIMEOUT] if bad_error else [])}
    return EXIT_OK if verdict.outcome == Outcome.PASS else EXIT_VERDICT if verdict.outcome in bad else EXIT_UNTESTED


def is_wanted(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for exit codes of a bisection, even one that cannot be parsed."""
    return any(argument.partition("=")[0] == OPTION for argument in arguments)


def of(code: int) -> int:
    """Convert an exit code: what is neither good nor bad nor an interrupt has not been tested."""
    return code if code in (EXIT_OK, EXIT_VERDICT) or code >= ENDS_BISECTION else EXIT_UNTESTED
