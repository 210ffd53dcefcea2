"""Denoise steps of a request: the transformer called each time, or recorded once for each shape and replayed.

A CUDA graph replays kernels on the memory that they were recorded with, and nothing of Python. So everything
that differs between requests of one shape lies in buffers that are written before a replay, and everything
else is part of the key that a recording is found by. Where there is no CUDA the step is called on the same
buffers: one that is not written is seen there too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Protocol, cast

import torch

from harness.plugins import Worker
from harness.spatial.group import Traffic, largest
from harness.spatial.transformer import Conditions, SpatialTransformer
from harness.types import FailureKind
from harness.worker import exhaustion

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Latents and time step to the velocity."""

MAX_BYTES = 8 << 30
"""Device memory for all recordings of a process; beyond it the least recently used ones are dropped."""


class Steps(Protocol):
    """Way to compute the steps of a request."""

    def begin(self, transformer: SpatialTransformer, latents: torch.Tensor, conditions: Conditions) -> Step:
        """Return the step of one request, whose latents have this shape and type."""


class EagerSteps:
    """Call the transformer at every step."""

    def begin(self, transformer: SpatialTransformer, latents: torch.Tensor, conditions: Conditions) -> Step:
        """Return a call of the transformer."""
        return lambda latents, timestep: cast(torch.Tensor, transformer(latents, timestep, conditions))


# ---------------------------------------------------------------- recorders

Function = Callable[[], torch.Tensor]
"""A computation on fixed memory."""


class Recorder(Protocol):
    """Makes functions cheaper to call."""

    def warm_up(self, function: Function) -> torch.Tensor:
        """Call a function as it will be recorded."""

    def record(self, function: Function, traffic: Traffic) -> tuple[Function, int]:
        """Return what replays a function, and the bytes of device memory this holds."""


class Calls:
    """Records nothing: a replay is a call."""

    def warm_up(self, function: Function) -> torch.Tensor:
        """Call the function."""
        return function()

    def record(self, function: Function, traffic: Traffic) -> tuple[Function, int]:
        """Return the function itself."""
        return function, 0


class CudaGraphs:
    """Records CUDA graphs, NCCL's kernels included, each with a memory pool of its own."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def warm_up(self, function: Function) -> torch.Tensor:
        """Call the function on the stream it will be recorded on: libraries set up there what they cannot later."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = function()
        current.wait_stream(self._stream)
        result.record_stream(current)
        return result

    def record(self, function: Function, traffic: Traffic) -> tuple[Function, int]:
        """Capture the function, which computes and sends nothing yet."""
        sent = traffic.sent_bytes
        graph = torch.cuda.CUDAGraph()
        # Threads of NCCL ask for events meanwhile, which would break a capture in the stricter mode.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            reserved = torch.cuda.memory_reserved()
            result = function()
        each, traffic.sent_bytes = traffic.sent_bytes - sent, sent

        def replay() -> torch.Tensor:
            graph.replay()
            traffic.sent_bytes += each
            return result

        return replay, torch.cuda.memory_reserved() - reserved


# ---------------------------------------------------------------- recordings


class Recording:
    """The step of all requests of one shape.

    The first step of the first of them is computed eagerly, which warms up; the second one is recorded.

    Attributes
    ----------
    conditions
        Buffers of what a request gives once.
    num_bytes
        Of buffers and of what the recorder holds, on the rank that holds most: so all ranks drop the same ones.
    failed
        Whether memory ran out on some rank while recording; steps are then computed eagerly on all.
    """

    def __init__(
        self,
        transformer: SpatialTransformer,
        latents: torch.Tensor,
        conditions: Conditions,
        recorder: Recorder,
    ) -> None:
        self.latents = torch.empty_like(latents)
        self.timestep = latents.new_empty(len(latents), dtype=torch.float32)
        self.conditions = conditions.clone()
        self.num_bytes, self.failed = 0, False
        self._recorder, self._group = recorder, transformer.group
        self._function = partial(transformer, self.latents, self.timestep, self.conditions)
        self._warm = False
        self._replay: Function | None = None

    @property
    def settled(self) -> bool:
        """Whether recording has been tried."""
        return self._replay is not None

    def take(self, conditions: Conditions) -> None:
        """Write a request's conditions into the buffers."""
        for buffer, given in zip(self.conditions.tensors, conditions.tensors, strict=True):
            buffer.copy_(given)

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Compute one step; the velocity is the caller's own."""
        self.latents.copy_(latents)
        self.timestep.copy_(timestep)
        if not self._warm:
            self._warm = True
            return self._recorder.warm_up(self._function)
        if self._replay is None:
            self._replay = self._record()
        return self._replay().clone()

    def _record(self) -> Function:
        replay, num_bytes = None, sum(buffer.nbytes for buffer in (self.latents, *self.conditions.tensors))
        try:
            replay, held = self._recorder.record(self._function, self._group.traffic)
            num_bytes += held
        except RuntimeError as error:
            if exhaustion.raised_by(error) != FailureKind.OUT_OF_MEMORY:
                raise
        failed, self.num_bytes = largest([replay is None, num_bytes], self._group.whole, self.latents.device)
        self.failed = bool(failed)
        return self._function if self.failed or replay is None else replay


class Recordings:
    """All recordings of a process, within a bound on their memory."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.kept: OrderedDict[Hashable, Recording] = OrderedDict()
        """The one used last comes last."""

    @property
    def num_bytes(self) -> int:
        """Memory of all recordings."""
        return sum(recording.num_bytes for recording in self.kept.values())

    def find(self, key: Hashable, make: Callable[[], Recording]) -> Recording:
        """Return the recording of a key, made if there is none."""
        if key not in self.kept:
            self.kept[key] = make()
        self.kept.move_to_end(key)
        return self.kept[key]

    def shrink(self) -> None:
        """Drop what failed, and the least recently used ones beyond the bound, but for the last."""
        for key in [key for key, recording in self.kept.items() if recording.failed]:
            del self.kept[key]
        while len(self.kept) > 1 and self.num_bytes > self.max_bytes:
            self.kept.popitem(last=False)


class RecordedSteps:
    """Replay the steps of requests whose shape has been met before.

    Parameters
    ----------
    recordings
        Those of the process.
    recorder
        How steps are recorded.
    worker
        Counts for each run and rank: ``graphs_recorded``, ``graph_steps`` (those replayed), ``graph_bytes`` (held
        by the recording), and ``graphs_out_of_memory``.
    context
        What else decides which kernels a step launches, beside shapes and split.
    """

    def __init__(self, recordings: Recordings, recorder: Recorder, worker: Worker, context: Hashable = None) -> None:
        self.recordings, self.recorder, self.worker, self.context = recordings, recorder, worker, context

    def begin(self, transformer: SpatialTransformer, latents: torch.Tensor, conditions: Conditions) -> Step:
        """Return the step of one request, its conditions written into the buffers of its shape."""
        key = (self.context, transformer, key_of(latents, conditions))
        recording = self.recordings.find(key, lambda: Recording(transformer, latents, conditions, self.recorder))
        recording.take(conditions)
        if recording.settled:
            self.worker.count("graph_bytes", recording.num_bytes)
        return partial(self._step, recording)

    def _step(self, recording: Recording, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        known = recording.settled
        velocity = recording(latents, timestep)
        if recording.settled and not known:
            self.worker.count("graphs_out_of_memory" if recording.failed else "graphs_recorded", 1)
            self.worker.count("graph_bytes", 0 if recording.failed else recording.num_bytes)
            self.recordings.shrink()
        self.worker.count("graph_steps", int(recording.settled and not recording.failed))
        return velocity


def key_of(latents: torch.Tensor, conditions: Conditions) -> Hashable:
    """Everything that a recording is fixed to: the plan, types, and the shapes of all that enters a step.

    Batch, guidance and the captions' bucket are in the shapes.
    """
    return conditions.plan, latents.dtype, latents.shape, *(tensor.shape for tensor in conditions.tensors)
