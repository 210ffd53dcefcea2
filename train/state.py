"""One training run: step after step, an average of the weights, a log, and a state to go on from."""

from __future__ import annotations

import copy
import csv
import math
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Trainee(ABC):
    """A network in training. Subclasses say what its loss is.

    Everything random in a step follows from the seed and the step's number, so a run that was stopped
    goes on as if it had not been; on one processor thread to the last bit.
    """

    name = "trainee"

    def __init__(self, model: Any, device: str, seed: int, steps: int, peak_lr: float, ema_decay: float) -> None:
        self.model, self.device, self.seed, self.steps = model, device, seed, steps
        self.peak_lr, self.ema_decay = peak_lr, ema_decay
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=peak_lr, betas=(0.9, 0.97), weight_decay=0.01, fused=device == "cuda"
        )

    @abstractmethod
    def loss(self, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Loss of a step, and further figures for the log."""

    def rate(self) -> float:
        """Learning rate: a short rise, then level, then half a cosine down to nothing over the last 40 %."""
        rise = min(1.0, (self.step + 1) / 200)
        left = (1 - self.step / self.steps) / 0.4
        return self.peak_lr * rise * (1.0 if left >= 1 else 0.5 - 0.5 * math.cos(math.pi * max(left, 0.02)))

    def advance(self) -> dict[str, float | Tensor]:
        """One step."""
        loss, figures = self.loss(self.step)
        loss.backward()
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
        begun = logged = time.monotonic()
        first = self.step
        while self.step < self.steps and time.monotonic() - begun < seconds:
            figures = self.advance()
            if self.step % every == 0 or self.step == self.steps:
                row = {"step": self.step, "lr": self.rate()} | {k: float(v) for k, v in figures.items()}
                if not math.isfinite(row["loss"]):
                    raise FloatingPointError(f"the loss of step {self.step} is {row['loss']}")
                now = time.monotonic()
                left_s = (self.steps - self.step) * (now - begun) / (self.step - first)
                _log(folder / f"{self.name}.csv", row | {"seconds": round(now - logged, 3)})
                if self.step % (every * 10) == 0 or self.step == self.steps:
                    shown = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "step")
                    print(f"{self.name} {self.step}/{self.steps}  {shown}  {left_s:.0f} s left", flush=True)
                logged = now
        self.save(folder)
        return self.step >= self.steps


def _log(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
