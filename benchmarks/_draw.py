"""The bare script: make the engines ready once, draw run after run, keep nothing.

Started by ``_launch.py`` or by torchrun as ``_draw.py JOB``. Single runs are shared out: whoever makes the
file of a run's number first draws it. Where the job has ``warm``, every process draws the run of that number once
before, and keeps no time of it. A process leaves its times in ``LOCAL_RANK.json`` beside the job.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from harness import codec, plugins
from harness.plugins import Engine, Worker
from harness.types import Device, RunSpec
from harness.worker import traffic
from harness.worker.clock import peak_memory_bytes, reset_peak_memory


def main() -> None:
    """Draw what the job says."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    specs = [codec.decode(RunSpec, data) for data in job["specs"]]
    local_rank, rank, world_size = (int(os.environ[name]) for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"))
    case = specs[0].case
    worker = Worker(rank, world_size, case.device, specs[0].model_path, case.dtype)
    names = dict.fromkeys(spec.engine for spec in specs)
    engines: dict[str, Engine] = {name: plugins.load("engines", name)() for name in names}
    for engine in engines.values():
        worker.configuration = {**worker.configuration, **engine.configuration(specs[0])}
    computing = any("torch" in engine.packages for engine in engines.values())
    if computing:
        _start_torch(worker, local_rank, job["threads"])
    for engine in engines.values():
        engine.load(worker)
    reply: dict[str, Any] = {"ready_s": time.time() - float(os.environ["BEGAN_AT"]), "runs": []}
    reply["loaded_bytes"] = _memory_bytes(case.device)
    if job.get("warm") is not None:
        first = specs[job["warm"]]
        engines[first.engine].draw(first)
        _give_back_memory()
    for number, spec in enumerate(specs):
        if world_size > 1 or _claim(Path(job["folder"], f"taken-{number}")):
            reply["runs"].append(_drawn(engines[spec.engine], spec, worker))
    if job.get("weights"):
        reply |= _weights(worker)
    Path(job["folder"], f"{local_rank}.json").write_text(json.dumps(reply), encoding="utf-8")
    if computing and world_size > 1:
        import torch.distributed as dist

        dist.barrier()  # nobody leaves while another still waits for him
    os._exit(0)  # an interpreter that tidies up takes a second; the harness' ranks do not either


def _start_torch(worker: Worker, local_rank: int, threads: int) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(threads)
    if worker.device == "cuda":
        torch.cuda.set_device(local_rank)
    if worker.world_size > 1:
        dist.init_process_group("nccl" if worker.device == "cuda" else "gloo")
        traffic.listen(partial(worker.count, traffic.COUNTER))


def _claim(file: Path) -> bool:
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _drawn(engine: Engine, spec: RunSpec, worker: Worker) -> dict[str, Any]:
    reset_peak_memory(spec.case.device)
    worker.counters.clear()
    started = time.perf_counter()
    drawing = engine.draw(spec)
    draw_s = time.perf_counter() - started
    return {
        "digest": spec.digest,
        "draw_s": draw_s,
        "steps_s": list(drawing.times.steps_s) if drawing else [],
        "peak_memory_bytes": peak_memory_bytes(spec.case.device),
        "counters": dict(worker.counters),
    }


def _memory_bytes(device: Device) -> int:
    """What is taken now: by torch on a GPU, by the process on a CPU."""
    reset_peak_memory(device)
    return peak_memory_bytes(device)


def _give_back_memory() -> None:
    """Return what has been freed to the system: a process keeps it, and its size would be a later run's peak.

    On a GPU nothing is to be done, as there the peak is of what is allocated, not of what torch keeps for later.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _weights(worker: Worker) -> dict[str, int]:
    """Bytes of the pipeline's three networks, and of all parameters and buffers that live in this process.

    Storage is counted, each once: a second copy of the weights, whoever holds it, makes the second figure
    a multiple of the first. Both engines are made resident for it.
    """
    import torch

    from harness.models.z_image import load_pipeline

    for name in ("diffusers", "spatial"):
        plugins.load("engines", name)().load(worker)
    pipeline = load_pipeline(worker.model_path, worker.dtype, worker.device)  # the resident one, by its cache
    networks = (pipeline.text_encoder, pipeline.transformer, pipeline.vae)
    everything = [module for module in gc.get_objects() if isinstance(module, torch.nn.Module)]
    found = {"weights_bytes": _storage_bytes(networks), "held_bytes": _storage_bytes(everything)}
    if worker.device == "cuda":
        torch.cuda.empty_cache()
        found["allocated_bytes"] = torch.cuda.memory_allocated()
    return found


def _storage_bytes(modules: Any) -> int:
    storages = {}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


if __name__ == "__main__":
    main()
