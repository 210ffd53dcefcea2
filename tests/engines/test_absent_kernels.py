"""Packages of kernels that are not installed can be imported and decorated with, and not computed with."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import harness.engines._absent_kernels
import triton, triton.language as tl
from triton.language.extra import libdevice
from sgl_kernel import rmsnorm
import torch
from torch.utils._triton import has_triton_package

@triton.autotune(configs=[triton.Config({}, num_warps=4)], key=["n"])
@triton.jit
def kernel(n: tl.constexpr):
    pass

class Descriptor(tl.tensor): ...

assert not has_triton_package()
for call in (lambda: kernel[(1,)](3), lambda: triton.runtime.driver.active.get_current_target()):
    try:
        call()
    except RuntimeError as error:
        print(error)
print(torch.compile)
"""


def test_they_can_be_decorated_with_and_not_launched() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "kernel kernel needs a package that is not installed" in ran.stdout
    assert "get_current_target is not installed in this environment" in ran.stdout
