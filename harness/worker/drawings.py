"""An engine's drawing: checked, and written into the run's folder."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.plugins import Drawing, Engine, Worker
from harness.types import Case, Times
from harness.worker.protocol import Done


class DrawingError(TypeError):
    """A drawing that cannot be recorded; the message names the engine and what to return instead."""


def reported(engine: Engine, worker: Worker, peak_memory_bytes: int) -> Done:
    """Collect what a rank reports of a request, besides its drawing.

    Raises
    ------
    DrawingError
        If a counter is no number, or the decisions of a cache are no flags.
    """
    try:
        counters = {str(name): int(amount) for name, amount in worker.counters.items()}
        return Done(peak_memory_bytes, counters, tuple(bool(served) for served in worker.cache_decisions))
    except (TypeError, ValueError, AttributeError) as error:
        what = f"counters {worker.counters!r:.80} and cache_decisions {worker.cache_decisions!r:.80}"
        raise DrawingError(f"engine {engine.name!r}: Worker.count takes integers ({what}): {error}") from error


def checked(engine: Engine, drawing: Any, case: Case) -> Drawing:
    """Check the drawing of rank 0, with its latents as float32.

    Raises
    ------
    DrawingError
        If it is none, or a part of it is of another type or number of dimensions. Another size and values that are
        not finite are no matter of types: they fail where drawings are compared.
    """
    import numpy as np

    def wrong(part: str, found: Any, wanted: str) -> DrawingError:
        return DrawingError(f"engine {engine.name!r}: draw returned {part} {found}; return {wanted}")

    if not isinstance(drawing, Drawing):
        raise wrong(type(drawing).__name__, "on rank 0", "a harness.plugins.Drawing")
    if not isinstance(drawing.images, list | tuple) or not all(hasattr(image, "save") for image in drawing.images):
        raise wrong("images", f"{drawing.images!r:.80}", "a list of PIL pictures")
    if len(drawing.images) != case.num_images:
        raise wrong(f"{len(drawing.images)} pictures", f"for a case of {case.num_images}", "one for each")
    arrays: dict[str, Any] = {}
    for part, axes in (("latents", "B,C,H,W"), ("trajectory", "T,B,C,H,W")):
        value = getattr(drawing, part)
        try:
            arrays[part] = None if value is None else np.ascontiguousarray(value, dtype=np.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise wrong(part, f"of type {type(value).__name__} ({error})", f"a float32 array {axes} or None") from error
        if value is not None and arrays[part].ndim != axes.count(",") + 1:
            raise wrong(part, f"of shape {arrays[part].shape}", f"a float32 array {axes} or None")
    try:
        tokens = tuple(int(number) for number in drawing.caption_tokens)
    except (TypeError, ValueError) as error:
        raise wrong("caption_tokens", f"{drawing.caption_tokens!r:.80}", "a tuple of integers") from error
    return replace(drawing, times=_times(engine, drawing.times), caption_tokens=tokens, **arrays)


def _times(engine: Engine, times: Any) -> Times:
    try:
        steps = tuple(float(seconds) for seconds in times.steps_s)
        return Times(float(times.text_s), steps, float(times.decode_s), float(times.total_s))
    except (TypeError, ValueError, AttributeError) as error:
        raise DrawingError(
            f"engine {engine.name!r}: draw returned times {times!r:.80}; return Times: {error}"
        ) from error


def save(drawing: Drawing, folder: Path, done: Done) -> Done:
    """Write pictures and latents, and name them in the reply."""
    from safetensors.numpy import save_file

    images = []
    for index, image in enumerate(drawing.images):
        name = f"image-{index}.png"
        whole = io.BytesIO()  # Pillow writes into a file itself, and does not notice what a full disk leaves out
        image.save(whole, "PNG", compress_level=1)  # a quarter of the default's time, a tenth more bytes
        (folder / name).write_bytes(whole.getbuffer())
        images.append(name)
    arrays = {"latents": drawing.latents, "trajectory": drawing.trajectory}
    kept = {name: array for name, array in arrays.items() if array is not None}
    if kept:
        save_file(kept, folder / "latents.safetensors")
    return replace(
        done,
        images=tuple(images),
        latents="latents.safetensors" if kept else None,
        times=drawing.times,
        caption_tokens=drawing.caption_tokens,
    )
