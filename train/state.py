"""One training run: step after step, an average of the weights, a log, and a state to go on from."""

from __future__ import annotations

import copy
import csv
import math
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train import together

ASK_EVERY = 20
"""Steps between two looks at the clock: on several GPUs each one makes all wait for all."""


@dataclass(frozen=True)
class Schedule:
    """How far a run is: by its steps or, where ``ends_at`` is set, by the clock.

    By the clock a lent GPU is used to its last minute whatever its speed, and the rate has sunk to nothing
    by then; but such a run cannot be repeated to the last bit.
    """

    steps: int
    begun_at: float = 0.0
    ends_at: float | None = None
    """Seconds as ``time.time`` counts them, which is the same in every process."""

    def progress(self, step: int) -> float:
        """Between 0 and 1."""
        if self.ends_at is not None:
            return min(1.0, (time.time() - self.begun_at) / (self.ends_at - self.begun_at))
        return min(1.0, step / self.steps)


class Trainee(ABC):
    """A network in training. Subclasses say what its loss is.

    Everything random in a step follows from the seed and the step's number, so a run that was stopped
    goes on as if it had not been; on one processor thread to the last bit. Under torchrun every process
    draws batches of its own, and gradients are averaged.
    """

    name = "trainee"

    def __init__(
        self, model: Any, device: str, seed: int, schedule: Schedule, peak_lr: float, ema_decay: float
    ) -> None:
        self.model, self.device, self.schedule = model, device, schedule
        self.seed = seed + 1_000_003 * together.rank()
        self.peak_lr, self.ema_decay = peak_lr, ema_decay
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.step = 0
        self.progress = 0.0
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=peak_lr, betas=(0.9, 0.97), weight_decay=0.01, fused=device == "cuda"
        )

    @abstractmethod
    def loss(self, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Loss of a step, and further figures for the log."""

    def rate(self) -> float:
        """Learning rate: a short rise, then level, then half a cosine down to nothing over the last 40 %."""
        rise = min(1.0, (self.step + 1) / 200)
        left = (1 - self.progress) / 0.4
        return self.peak_lr * rise * (1.0 if left >= 1 else 0.5 - 0.5 * math.cos(math.pi * max(left, 0.02)))

    def advance(self) -> dict[str, float | Tensor]:
        """One step."""
        loss, figures = self.loss(self.step)
        loss.backward()
        together.average_([parameter.grad for parameter in self.model.parameters() if parameter.grad is not None])
        self._look_at_the_clock()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # Early weights are forgotten sooner than the decay alone would.
        decay = min(self.ema_decay, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        self.step += 1
        return {"loss": loss.detach(), "norm": norm.detach(), **figures}

    def _look_at_the_clock(self) -> None:
        """All processes must agree on how far they are: the rate and the last step hang on it."""
        if self.schedule.ends_at is None:
            self.progress = self.schedule.progress(self.step)
        elif self.step % ASK_EVERY == 0:
            self.progress = together.agreed(self.schedule.progress(self.step))

    def save(self, folder: Path) -> None:
        """Write the state, whole or not at all."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = folder / f".{self.name}.pt"
        torch.save(state, temporary)
        os.replace(temporary, folder / f"{self.name}.pt")

    def resume(self, folder: Path) -> bool:
        """Go on from a saved state, if there is one."""
        path = folder / f"{self.name}.pt"
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        return True

    def run(self, folder: Path, seconds: float = math.inf, every: int = 50) -> bool:
        """Train until the last step or the end of the time; log, print and save on the way.

        Returns
        -------
        bool
            Whether the last step was reached.
        """
        folder.mkdir(parents=True, exist_ok=True)
        seconds = together.agreed(seconds)
        begun = logged = time.monotonic()
        first, begun_at = self.step, self.schedule.progress(self.step)
        while not self.complete():
            if self.step % ASK_EVERY == 0 and together.agreed(time.monotonic() - begun) >= seconds:
                break
            figures = self.advance()
            if self.step % every == 0 or self.complete():
                row = {"step": self.step, "lr": self.rate()} | {k: float(v) for k, v in figures.items()}
                if not math.isfinite(row["loss"]):
                    raise FloatingPointError(f"the loss of step {self.step} is {row['loss']}")
                now = time.monotonic()
                if together.rank() == 0:
                    _log(folder / f"{self.name}.csv", row | {"seconds": round(now - logged, 3)})
                    if self.step % (every * 10) == 0 or self.complete():
                        left_s = (1 - self.progress) * (now - begun) / max(self.progress - begun_at, 1e-6)
                        shown = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "step")
                        print(f"{self.name} {self.step}  {shown}  {left_s:.0f} s left", flush=True)
                logged = now
        if together.rank() == 0 and self.step > first:
            self.save(folder)
        return self.complete()

    def complete(self) -> bool:
        """Whether the last step has been made."""
        if self.schedule.ends_at is not None:
            return self.progress >= 1
        return self.step >= self.schedule.steps


def _log(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
