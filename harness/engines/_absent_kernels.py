"""Make engines written for GPUs importable where there is none; importing this module does it.

Packages of kernels have no build for a CPU, but engines import them at the top of their modules and decorate
functions with them, also where none of these will run. Each package that is not installed is found as a module
whose every attribute is an :class:`Absent`: it can be imported and decorated with, and not computed with.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch.utils._triton import has_triton_package

PACKAGES = ("triton", "flashinfer", "sgl_kernel")


class Absent(type):
    """A class in the place of a function, a decorator, a type or a constant of a package that is not there.

    It can be subclassed, subscripted and named in annotations. Called with one function it is a decorator and
    returns a kernel that cannot be launched, called with options it returns a decorator.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and callable(args[0]):
            return _Kernel(args[0])
        if not (args or kwargs):  # such as a driver asked which GPU there is
            raise RuntimeError(f"{cls.__name__} is not installed in this environment")
        return cls

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{cls.__name__}.{name}", (), {})

    def __getitem__(cls, key: Any) -> Any:
        return cls


class _Kernel:
    """A function that was decorated with something absent."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.fn = function
        self.__name__ = getattr(function, "__name__", "kernel")
        self.__doc__ = function.__doc__

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"kernel {self.__name__} needs a package that is not installed in this environment")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages and all their submodules where nothing else does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module of one of the packages."""
        known = fullname.partition(".")[0] in PACKAGES
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if known else None

    def exec_module(self, module: ModuleType) -> None:
        """Make every attribute of the module absent."""
        made: dict[str, Any] = {}

        def __getattr__(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return made.setdefault(name, Absent(f"{module.__name__}.{name}", (), {}))

        vars(module).update(__getattr__=__getattr__, __version__="0")


def _find_absent_kernels() -> None:
    # torch asks for its compiler once and remembers the answer, which must not be the absent one.
    has_triton_package()
    importlib.import_module("torch._inductor.runtime.triton_compat")
    sys.meta_path.append(_Finder())
    if not hasattr(torch.cpu, "get_device_properties"):  # kernels choose their shapes by it when they are imported
        vars(torch.cpu)["get_device_properties"] = lambda device=None: None


def _declare_operators() -> None:
    """Declare what torchvision gives a shape function to without having it.

    The build that the index serves is for CUDA; its library does not load beside a CPU build of torch.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except ImportError:
        pass


if not torch.cuda.is_available():
    _find_absent_kernels()
    _declare_operators()
