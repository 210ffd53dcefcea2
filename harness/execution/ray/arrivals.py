"""Files and events of a task as they come in: each run's folder appears whole once the run is over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness import codec, files
from harness.execution.events import Event, Finished, FolderOf, Started, Stepped
from harness.execution.group import cannot_write
from harness.execution.ray.node import Piece
from harness.execution.ray.placement import Group
from harness.types import FailureKind, Run


class Arrivals:
    """Files and events of one task.

    Parameters
    ----------
    group
        The runs; those that are over are noted in it.
    folder_of
        Where the folder of a run is to appear.
    keep_killed
        Record a run whose ranks were killed; otherwise it counts as lacking.
    """

    def __init__(self, group: Group, folder_of: FolderOf, keep_killed: bool) -> None:
        self._group = group
        self.folder_of = folder_of
        self._keep_killed = keep_killed
        self._building: dict[str, Path] = {}
        self.killed = ""
        """Message of the first run whose ranks were killed."""
        self.logs = Path()
        """Folder of the ranks' logs."""

    def take(self, message: Started | Stepped | Finished | Piece) -> Iterator[Event]:
        """Keep a piece of a file; yield an event with the paths of this machine. Runs that are known are passed over.

        Raises
        ------
        InfrastructureError
            If a folder cannot be written.
        """
        try:
            if isinstance(message, Piece):
                self._append(message)
            elif isinstance(message, Finished):
                yield from self._finish(message.run)
            elif message.spec.digest not in self._group.done:
                spec = self._group.planned(message.spec)
                if isinstance(message, Started):
                    self._building[spec.digest] = files.begin(self.folder_of(spec))
                yield replace(message, spec=spec)
        except OSError as error:
            raise cannot_write(Path(error.filename or self.logs), error) from None

    def fail(self, run: Run) -> Finished:
        """Record a run of which nothing came."""
        self._building[run.spec.digest] = files.begin(self.folder_of(run.spec))
        return self._publish(run)

    def drop(self) -> None:
        """Remove what has come of runs that are not over."""
        for folder in self._building.values():
            shutil.rmtree(folder, ignore_errors=True)

    def _append(self, piece: Piece) -> None:
        folder = self._building.get(piece.digest) if piece.digest else self.logs
        if folder:  # of a run that is known already nothing is kept
            path = folder / piece.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(piece.data)

    def _finish(self, run: Run) -> Iterator[Event]:
        if run.spec.digest in self._group.done:
            return
        if run.failure is not None and run.failure.kind == FailureKind.KILLED and not self._keep_killed:
            self.killed = self.killed or run.failure.message
        else:
            yield self._publish(replace(run, spec=self._group.planned(run.spec)))

    def _publish(self, run: Run) -> Finished:
        codec.write_json(self._building.pop(run.spec.digest) / "run.json", run)
        files.finish(self.folder_of(run.spec))
        self._group.done.add(run.spec.digest)
        return Finished(run)
