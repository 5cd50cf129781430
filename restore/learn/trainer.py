"""One run of training: the recipe, and steps that can be carried across processes to the bit."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch

from restore.priors.base import Denoiser
from restore.priors.network import UNet

from .base import Objective
from .data import Patches
from .muon import Muon


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights, besides the pictures, the objective and the seed."""

    steps: int = 20_000
    batch: int = 16
    patch: int = 64
    lr: float = 1e-3  # of AdamW
    muon: float = 20.0  # rate of Muon, which has the weights of hidden convolutions, in units of `lr`
    warmup: int = 500  # steps
    weight_decay: float = 1e-4
    clip: float = 1.0  # norm of the gradient
    ema: float = 0.999

    def rate(self, step: int) -> float:
        """Learning rate of AdamW at a step: a linear rise, then half a cosine down to a hundredth."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / self.steps))
        return self.lr * min(1.0, (step + 1) / self.warmup) * max(cosine, 0.01)


class Trainer:
    """One run: `state_dict` and `load_state_dict` carry it across processes, `step` takes one optimiser step."""

    def __init__(self, denoiser: Denoiser, objective: Objective, patches: Patches, recipe: Recipe, seed: int):
        self.denoiser, self.objective, self.patches, self.recipe = denoiser, objective, patches, recipe
        self.device = next(denoiser.parameters()).device
        hidden = [p for module in denoiser.modules() if isinstance(module, UNet) for p in module.hidden()]
        others = [p for p in denoiser.parameters() if all(p is not q for q in hidden)]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True)
        ]
        self.rates = [1.0]
        if hidden:
            self.optimizers.append(Muon(hidden, lr=0.0, weight_decay=recipe.weight_decay))
            self.rates.append(recipe.muon)
        self.average = {k: v.detach().clone() for k, v in denoiser.state_dict().items()}
        self.cut = torch.Generator().manual_seed(seed)  # where patches come from: always on the CPU
        self.noise = torch.Generator(self.device).manual_seed(seed + 1)  # noise and its levels
        self.done = 0

    def step(self) -> float:
        """One step; the mean loss of its batch. Raises FloatingPointError when the loss is not finite."""
        recipe = self.recipe
        for optimizer, times in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = times * recipe.rate(self.done)
        batch = self.patches.batch(recipe.batch, self.cut).to(self.device)
        objective = self.objective.at(self.done / recipe.steps)
        loss = objective.loss(self.denoiser, batch, self.noise).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.done}: lower the learning rate")
        self.denoiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.done += 1
        keep = min(recipe.ema, self.done / (self.done + 10))  # early weights are forgotten sooner
        own = self.denoiser.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [own[k] for k in self.average], 1 - keep)
        return loss.item()

    def state_dict(self) -> dict:
        return {
            "weights": self.denoiser.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "cut": self.cut.get_state(),
            "noise": self.noise.get_state(),
            "done": self.done,
        }

    def load_state_dict(self, state: dict) -> None:
        self.denoiser.load_state_dict(state["weights"])
        self.average = {k: v.to(self.device) for k, v in state["average"].items()}
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        self.cut.set_state(state["cut"].cpu())
        self.noise.set_state(state["noise"].cpu())
        self.done = state["done"]


@contextmanager
def ctrl_c_between_steps() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted instead of raised, so that no step is left half done; pressed again, it is raised. Gives out what
    tells whether it was pressed."""
    count = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: count > 0
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
