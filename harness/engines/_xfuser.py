"""xFuser, imported and started in the ranks of the harness; on a CPU, too, where its packages know no device."""

from __future__ import annotations

import importlib
import sys
from contextlib import ExitStack
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch

from harness.engines import _absent_kernels  # noqa: F401, makes what follows importable
from harness.plugins import Worker


@cache
def _modules() -> tuple[Any, Any]:
    """Import yunchang's globals and xFuser's transformer."""
    with ExitStack() as stack:
        if not torch.cuda.is_available():  # both ask for a version of CUDA or of a GPU when imported, and raise without
            stack.enter_context(patch.object(torch.version, "cuda", "12.0"))
            stack.enter_context(patch.object(torch.cuda, "get_device_capability", lambda *_: (8, 0)))
        return (
            importlib.import_module("yunchang.globals"),
            importlib.import_module("xfuser.model_executor.models.transformers.transformer_z_image"),
        )


def start(worker: Worker) -> None:
    """Do what xFuser's launcher does in each process, on the process group that is there."""
    import torch.distributed as dist

    groups, _ = _modules()
    from xfuser.core.distributed import parallel_state, runtime_state
    from xfuser.model_executor.layers import usp

    backend = "nccl" if worker.device == "cuda" else "gloo"
    if not dist.is_initialized():
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    # Both are left out where there is no GPU, though nothing in them needs one.
    for module in [module for name, module in sys.modules.items() if name.startswith("xfuser.")]:
        if hasattr(module, "HAS_LONG_CTX_ATTN"):
            vars(module)["HAS_LONG_CTX_ATTN"] = True
    usp.PROCESS_GROUP = groups.PROCESS_GROUP
    parallel_state.init_distributed_environment(worker.world_size, worker.rank, local_rank=worker.rank, backend=backend)
    parallel_state.initialize_model_parallel(ulysses_degree=worker.world_size, ring_degree=1, backend=backend)
    # Outside of its own pipelines it takes the degrees for those of a single device.
    arguments = partial(runtime_state.xFuserArgs, ulysses_degree=worker.world_size)
    with patch.object(runtime_state, "xFuserArgs", arguments):
        runtime_state.initialize_runtime_state()
    state: Any = runtime_state.get_runtime_state()
    state.set_attention_backend("SDPA")


def wrapped(stock: Any) -> Any:
    """Make xFuser's transformer on the weights of diffusers' own."""
    # from_config() looks for the names of arguments, of which its constructor has none, and makes the full size.
    configuration = {name: value for name, value in stock.config.items() if not name.startswith("_")}
    _, transformers = _modules()
    wrapper = transformers.xFuserZImageTransformer2DWrapper(**configuration)
    wrapper.load_state_dict(stock.state_dict(), assign=True)
    return wrapper.eval().requires_grad_(False)
