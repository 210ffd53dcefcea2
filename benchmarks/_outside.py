"""What can be done to a run from outside, and seen of it: its processes, its journal, the GPUs' memory.

Linux alone: processes are read from ``/proc``. Those of a run are known by an environment variable, which
every process it starts inherits; a rank is known by the log it prints into.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

MARK = "SP_BREAKDOWNS_RUN"
DEADLINE_S = 300.0
MIB = 1 << 20


class Command:
    """``sp-harness run`` in a process of its own, with all that it starts."""

    def __init__(self, *arguments: object, log: Path) -> None:
        self.log = log
        self._mark = uuid.uuid4().hex
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness.cli", "run", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, MARK: self._mark},
            )

    def wait(self) -> int:
        """Its exit code; negative if a signal ended it.

        Raises
        ------
        RuntimeError
            If it takes too long; it is killed, with all that it started.
        """
        try:
            return self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.end()
            message = f"the run did not end within {DEADLINE_S:g} s and was killed; it printed:\n{self.printed()}"
            raise RuntimeError(message) from None

    def printed(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that the run does.

        Raises
        ------
        RuntimeError
            If it ends before, or takes too long.
        """
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            ended = self.process.poll()
            if ended is not None or time.monotonic() > deadline:
                state = "is still running" if ended is None else f"has ended with {ended}"
                raise RuntimeError(f"waited for {what}, and the run {state}; it printed:\n{self.printed()}")
            time.sleep(0.005)

    def pids(self) -> list[int]:
        """All living processes of this run, orphans too; not the run itself."""
        return [pid for pid in _processes(self._mark) if pid != self.process.pid]

    def ranks(self) -> dict[int, int]:
        """Process ids of the split group, by rank."""
        groups: dict[str, dict[int, int]] = {}
        for pid in self.pids():
            found = re.search(r"^(.*)/rank-(\d+)\.log$", _link(pid, "fd/1"))
            if found:
                groups.setdefault(found[1], {})[int(found[2])] = pid
        return next((ranks for ranks in groups.values() if len(ranks) > 1), {})

    def left(self, within_s: float = 20.0) -> int:
        """How many of the run's processes have not ended, soon."""
        deadline = time.monotonic() + within_s
        while (pids := self.pids()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return len(pids)

    def end(self) -> None:
        """Leave nothing running, whatever went wrong here."""
        for pid in [*self.pids(), *([] if self.process.poll() is not None else [self.process.pid])]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def limit_memory(pid: int, spare_bytes: int) -> None:
    """Let a process have little more than it has now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmSize:"):
            limit = int(line.split()[1]) * 1024 + spare_bytes
            resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))


def gpu_used_bytes() -> dict[str, int]:
    """Memory in use on every GPU of the machine, by UUID; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {name: int(used) * MIB for name, used in (line.split(", ") for line in text.splitlines())}


class Ballast:
    """A process that fills a GPU's memory when it is told to, and gives it back when it ends."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Exactly what is asked for is taken: torch's own allocator rounds some MiB up to twenty.
            env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        )
        self._line()  # ready, after some seconds: what follows is quick

    def fill(self, device_index: int, spare_bytes: int) -> tuple[int, int]:
        """Take all memory of a GPU but a little; returns the bytes taken so far, and those left."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{device_index} {spare_bytes}\n")
        self._process.stdin.flush()
        took, left = self._line().split()
        return int(took), int(left)

    def left(self, device_index: int) -> int:
        """Bytes that are free on a GPU."""
        return self.fill(device_index, sys.maxsize)[1]

    def release(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that fills the GPU's memory has ended")
        return line


def _serve_ballast() -> None:
    import torch

    for index in range(torch.cuda.device_count()):
        torch.empty(1, device=f"cuda:{index}")
    print("ready", flush=True)
    blocks = []
    for line in sys.stdin:
        index, spare = map(int, line.split())
        largest = 1 << 30
        while (free := torch.cuda.mem_get_info(index)[0]) > spare + 2 * MIB and largest >= 2 * MIB:
            size = min(free - spare, largest)
            try:
                blocks.append(torch.empty(size, dtype=torch.uint8, device=f"cuda:{index}"))
            except RuntimeError:  # others take memory as well; without its own allocator torch says so in CUDA's words
                largest = size // 2
        print(sum(block.numel() for block in blocks), torch.cuda.mem_get_info(index)[0], flush=True)


def _processes(mark: str) -> Iterator[int]:
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0") and "\nState:\tZ" not in (
                entry / "status"
            ).read_text(errors="replace"):
                yield int(entry.name)
        except OSError:
            continue  # ended meanwhile, or another user's


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""


if __name__ == "__main__":
    _serve_ballast()
