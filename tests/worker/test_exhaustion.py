"""What has run out is known by what is raised and printed, whoever does it."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from harness.types import FailureKind
from harness.worker.exhaustion import raised_by, told_by_nccl, told_in, told_last_in

MEMORY, DISK = FailureKind.OUT_OF_MEMORY, FailureKind.DISK_FULL

STACK = '  File "engine.py", line 1 in draw\n' * 30
NCCL_ERROR = "RuntimeError: NCCL Error 1: unhandled cuda error"
NCCL_MEMORY = "h:1:1 [1] enqueue.cc:7 NCCL WARN Cuda failure 2 'out of memory'\n"
CUDA_ERROR = """terminate called after throwing an instance of 'c10::AcceleratorError'
  what():  CUDA error: out of memory
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.

Exception raised from c10_cuda_check_implementation at CUDAException.cpp:44 (most recent call first):
"""


def out_of_words(error: type[BaseException], words: str, cause: BaseException | None = None) -> BaseException:
    try:
        raise error(words) from cause
    except BaseException as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), MEMORY),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), MEMORY),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), MEMORY),
        (RuntimeError("NCCL error: unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"), MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), MEMORY),
        (out_of_words(RuntimeError, "generation failed", MemoryError()), MEMORY),  # an engine that wraps what it meets
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/cache"), DISK),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), DISK),
        (RuntimeError("NCCL error\nfailed to extend /dev/shm/nccl-X to 9637892 bytes: No space left on device"), DISK),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), DISK),
        (out_of_words(RuntimeError, "generation failed", OSError(errno.ENOSPC, "no room")), DISK),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "weights"), FailureKind.EXHAUSTED),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), FailureKind.EXHAUSTED),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), FailureKind.EXHAUSTED),  # of fork
        (RuntimeError("can't start new thread"), FailureKind.EXHAUSTED),
        (ValueError("write 'No space left on device' in a prompt"), None),
        (RuntimeError("the size of tensor a (3) must match the size of tensor b (4)"), None),
        (ValueError("write 'out of memory' in a prompt"), None),
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT)), None),
    ],
    ids=lambda value: f"{type(value).__name__}-{value}"[:40] if isinstance(value, BaseException) else None,
)
def test_what_ran_out_is_known_by_its_words(error: BaseException, expected: FailureKind | None) -> None:
    assert raised_by(error) is expected


def test_torch_runs_out_of_memory_on_the_processor_in_words_of_its_own() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert raised_by(caught.value) is MEMORY


@pytest.mark.parametrize(
    ("message", "printed", "expected"),
    [
        (NCCL_ERROR, NCCL_MEMORY, MEMORY),
        (NCCL_ERROR, "h:1:1 [1] alloc.h:7 NCCL WARN Cuda failure 1 'invalid argument'\n", None),
        (
            NCCL_ERROR,
            "h:1:1 [0] shmutils.cc:7 NCCL WARN posix_fallocate failed : No space left on device\n",
            DISK,
        ),
        (NCCL_ERROR, "out of memory: a smaller batch\n", None),
        ("RuntimeError: wrong shape", NCCL_MEMORY, None),
    ],
    ids=["memory", "another error", "disk", "of another library", "another exception"],
)
def test_nccl_prints_what_torch_does_not_say(message: str, printed: str, expected: FailureKind | None) -> None:
    found = told_by_nccl(message, "NCCL version 2.28\n" + printed)
    assert found == ((expected, printed.strip()) if expected else None)


def test_a_handled_error_is_not_what_led_here() -> None:
    def load() -> None:
        try:
            raise MemoryError
        except MemoryError:
            raise RuntimeError("the file is no checkpoint") from None

    with pytest.raises(RuntimeError) as caught:
        load()
    assert raised_by(caught.value) is None


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n", MEMORY),
        ("libtorch_cpu.so: cannot map zero-fill pages: Cannot allocate memory\n", MEMORY),
        ("Traceback (most recent call last):\n  ...\nMemoryError\n", MEMORY),
        ("terminate called after throwing an instance of 'std::runtime_error'\n  no space left on device\n", DISK),
        ("Fatal Python error: Segmentation fault\n", None),
        ("", None),
        ("std::bad_alloc\nFatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n" + STACK, MEMORY),
        (CUDA_ERROR + "frame #0: c10::Error::Error() + 0x96\n" * 40 + "Fatal Python error: Aborted\n" + STACK, MEMORY),
        ("out of memory: a smaller batch\n" + "step\n" * 8 + "Fatal Python error: Segmentation fault\n", None),
        ("Fatal Python error: Segmentation fault\n" + '  File "out of memory.py", line 1 in <module>\n', None),
    ],
)
def test_a_crash_is_told_by_its_last_words(printed: str, expected: FailureKind | None) -> None:
    """What was met long before, or stands in the stack of the crash, is not why it crashed."""
    assert told_last_in(printed) is expected


def test_an_error_is_told_by_any_of_its_words() -> None:
    assert told_in("Cannot allocate memory\n" + "more\n" * 20) is MEMORY
