"""Memory that has run out is known by what is raised and printed, whoever does it."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from harness.probe.exhaustion import raised_by, told_by_nccl, told_in, told_last_in

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
        (MemoryError(), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("NCCL error: unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (out_of_words(RuntimeError, "generation failed", MemoryError()), True),  # an engine that wraps what it meets
        (RuntimeError("the size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("write 'out of memory' in a prompt"), False),
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT)), False),
    ],
    ids=lambda value: f"{type(value).__name__}-{value}"[:40] if isinstance(value, BaseException) else None,
)
def test_running_out_of_memory_is_known_by_its_words(error: BaseException, expected: bool) -> None:
    assert raised_by(error) is expected


def test_torch_runs_out_of_memory_on_the_processor_in_words_of_its_own() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert raised_by(caught.value)


@pytest.mark.parametrize(
    ("message", "printed", "expected"),
    [
        (
            "RuntimeError: NCCL Error 1: unhandled cuda error",
            "h:1:1 [1] enqueue.cc:7 NCCL WARN Cuda failure 2 'out of memory'\n",
            True,
        ),
        (
            "RuntimeError: NCCL Error 1: unhandled cuda error",
            "h:1:1 [1] alloc.h:7 NCCL WARN Cuda failure 1 'invalid argument'\n",
            False,
        ),
        (NCCL_ERROR, "out of memory: a smaller batch\n", False),
        ("RuntimeError: wrong shape", NCCL_MEMORY, False),
    ],
    ids=["told", "another error", "of another library", "another exception"],
)
def test_nccl_prints_what_torch_does_not_say(message: str, printed: str, expected: bool) -> None:
    assert told_by_nccl(message, "NCCL version 2.28\n" + printed) == (printed.strip() if expected else "")


def test_a_handled_error_is_not_what_led_here() -> None:
    def load() -> None:
        try:
            raise MemoryError
        except MemoryError:
            raise RuntimeError("the file is no checkpoint") from None

    with pytest.raises(RuntimeError) as caught:
        load()
    assert not raised_by(caught.value)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n", True),
        ("libtorch_cpu.so: cannot map zero-fill pages: Cannot allocate memory\n", True),
        ("Traceback (most recent call last):\n  ...\nMemoryError\n", True),
        ("Fatal Python error: Segmentation fault\n", False),
        ("", False),
        ("std::bad_alloc\nFatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n" + STACK, True),
        (CUDA_ERROR + "frame #0: c10::Error::Error() + 0x96\n" * 40 + "Fatal Python error: Aborted\n" + STACK, True),
        ("out of memory: a smaller batch\n" + "step\n" * 8 + "Fatal Python error: Segmentation fault\n", False),
        ("Fatal Python error: Segmentation fault\n" + '  File "out of memory.py", line 1 in <module>\n', False),
    ],
)
def test_a_crash_is_told_by_its_last_words(printed: str, expected: bool) -> None:
    """What was met long before, or stands in the stack of the crash, is not why it crashed."""
    assert told_last_in(printed) is expected


def test_an_error_is_told_by_any_of_its_words() -> None:
    assert told_in("Cannot allocate memory\n" + "more\n" * 20)
