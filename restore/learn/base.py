"""What an objective is: a loss whose minimiser is the denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from restore.priors.base import Denoiser


class Objective(ABC):
    """A loss over denoisers. Frozen dataclasses; the fields are the hyperparameters."""

    @abstractmethod
    def loss(self, denoiser: Denoiser, batch: Tensor, rng: torch.Generator) -> Tensor:
        """One loss per row of `batch`, `(B, C, *spatial) -> (B,)`, every random number drawn from `rng`."""

    def at(self, progress: float) -> Objective:
        """The objective when a share `progress` of the training is done; the same throughout unless it is annealed."""
        return self
