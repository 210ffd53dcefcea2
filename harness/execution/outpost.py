"""The program torchrun starts for each rank of a group that spans nodes.

Started as ``python -m harness.execution.outpost HEAD LAUNCH`` with torchrun's environment. It forks the rank, as the
head does with its own, and stands between the two: orders come over the network, replies, log, files and
the end go back. When the head hangs up, the rank is killed. So nothing has to be shared between the nodes
but the checkpoint, and of a rank that hangs or dies the head learns as much as of one of its own.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.execution.rank import ForkedRank
from harness.execution.torchrun import NODE
from harness.execution.wire import TOKEN, Endpoint, Line, call

CALL_TIMEOUT_S = 60.0
LOG_POLL_S = 0.2
CHUNK_BYTES = 4 << 20


class Outpost:
    """One rank here, and the line to the head.

    Parameters
    ----------
    line
        The line to the head.
    scratch
        Folder for the log and for the files of one run.
    modules
        What the rank is forked with.
    """

    def __init__(self, line: Line, scratch: Path, modules: list[str]) -> None:
        self._line = line
        self._files = scratch / "files"
        self._files.mkdir()
        self._rank = ForkedRank(scratch / "log", modules)
        self._told_bytes = 0

    def serve(self) -> int:
        """Stand between head and rank until one of them ends; the exit code of the rank."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._line, selectors.EVENT_READ)
                selector.register(self._rank.replies, selectors.EVENT_READ)
                while True:
                    ready = [key.fileobj for key, _ in selector.select(LOG_POLL_S)]
                    self._tell_log()
                    if self._line in ready:
                        self._obey(*self._line.receive())
                    elif ready and not self._pass_replies():
                        break
            self._end()
        except (EOFError, OSError):
            pass  # the head has hung up
        finally:
            self._rank.kill()
            self._rank.close()
        return self._rank.wait()

    def _obey(self, message: dict[str, Any], data: bytes) -> None:
        if "order" in message:
            order = message["order"]
            self._rank.write({**order, "folder": str(self._files)} if "folder" in order else order)
        elif message.get("stacks"):
            self._line.send({"asleep": self._rank.asleep()})
            self._rank.print_stacks()
        elif message.get("kill"):
            self._rank.kill()

    def _pass_replies(self) -> bool:
        """Send on what the rank replies, the files of a run before the word that it is done; whether it lives."""
        replies = self._rank.read()
        for reply in replies or ():
            if reply["event"] == "done":
                self._send_files()
            self._line.send({"reply": reply})
        return replies is not None

    def _send_files(self) -> None:
        for path in sorted(self._files.iterdir()):
            with path.open("rb") as file:
                while data := file.read(CHUNK_BYTES):
                    self._line.send({"file": path.name}, data)
            path.unlink()

    def _tell_log(self) -> None:
        with self._rank.log.open("rb") as log:
            log.seek(self._told_bytes)
            while data := log.read(CHUNK_BYTES):
                self._line.send({"log": True}, data)
                self._told_bytes += len(data)

    def _end(self) -> None:
        code = self._rank.wait()
        self._tell_log()
        self._line.send({"ended": code})


def main() -> None:
    """Report to the head, and serve."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # torchrun, when another rank ends
    head, launch = sys.argv[1:]
    line = call(Endpoint.parse(head), os.environ.pop(TOKEN).encode(), CALL_TIMEOUT_S)
    rank, place, node = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", NODE))
    line.send({"rank": rank, "launch": launch, "place": place, "node": node})
    try:
        message, _ = line.receive()
    except (EOFError, OSError):
        return  # no longer wanted
    with tempfile.TemporaryDirectory(prefix="sp-harness-") as scratch:
        code = Outpost(line, Path(scratch), message["modules"]).serve()
    sys.exit(code if code > 0 else 1)


if __name__ == "__main__":
    main()
