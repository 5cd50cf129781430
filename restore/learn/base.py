"""What an objective is: a loss whose minimiser is the denoiser, and what a batch tells it of its pictures."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from restore.denoisers.tweedie import Tweedie
from restore.priors.base import Denoiser, per_row

PROBE = 0.15  # std of the probe of `sure`, in standard deviations of the noise


class Batch(NamedTuple):
    """Pictures and what is known of their damage.

    Attributes:
        x: pictures, `(B, C, *spatial)`; zero where nothing was seen.
        sigma: standard deviation of the white noise that each row carries, `(B,)`, in the units of `x`; zero: clean.
        mask: which entries were seen, bool, shaped like `x`; `None`: all.
    """

    x: Tensor
    sigma: Tensor
    mask: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        return Batch(self.x.to(device), self.sigma.to(device), None if self.mask is None else self.mask.to(device))


def clean(x: Tensor) -> Batch:
    """A batch of pictures without noise."""
    return Batch(x, x.new_zeros(len(x)))


class Objective(ABC):
    """A loss over denoisers. Frozen dataclasses; the fields are the hyperparameters.

    Attributes:
        supervised: whether it takes the pictures as clean, whatever the batch says.
        needs_noise: whether it must be told how strong the noise of the pictures is.
        takes_clean: whether clean pictures may stand among the noisy ones.
        takes_masks: whether pictures may be seen in part.
        for_samplers: whether it learns levels enough for a sampler, or only to denoise pictures like these.
        learns_score: whether what is learnt is the score of noisy pictures (`restore.denoisers.score`).
        serves: the types of noise it is for, `rho` of `Var[y | x] = phi x^rho`; `None`: any.
        needs_recorded_noise: whether it learns from clean speech with recorded noises on top.
        one_law: whether it knows a single `phi`, the same for all pictures.
        rho: not 0: what is learnt acts on pictures in `restore.denoisers.variable.Variable(rho)`.
    """

    supervised: ClassVar[bool] = False
    needs_noise: ClassVar[bool] = True
    takes_clean: ClassVar[bool] = False
    takes_masks: ClassVar[bool] = False
    for_samplers: ClassVar[bool] = True
    learns_score: ClassVar[bool] = False
    serves: ClassVar[tuple[float, ...] | None] = (0.0,)
    needs_recorded_noise: ClassVar[bool] = False
    one_law: ClassVar[bool] = False
    rho: float = 0.0

    @abstractmethod
    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        """One loss per row of `batch`, `(B,)`, every random number drawn from `rng`."""

    @property
    def from_zero(self) -> bool:
        """Whether its noise depends on the brightness, so that black has to stay zero."""
        return False

    def told(self, law: Tweedie) -> Objective:
        """The objective that knows the law of the noise of pictures in `[0, 1]`: here it is the batch that tells."""
        return self

    def of_noise(self, law: Tweedie | None) -> dict[str, Any] | None:
        """What the folder says of a network for such noise only, arguments of `PosteriorMean` besides the denoiser;
        `None` for a prior like another."""
        return None

    def at(self, progress: float) -> Objective:
        """The objective when a share `progress` of the training is done; the same throughout unless it is annealed."""
        return self

    def own_level(self, sigma: Tensor) -> Tensor:
        """The level at which `D` is held against pictures with noise `sigma`: that of the probe of `sure`, 1 % more."""
        return sigma * math.sqrt(1 + PROBE**2)

    def risk(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        """The mean squared error of `D` at `own_level`, estimated without bias from the noisy rows alone, `(B,)`."""
        return sure(denoiser, batch, self.own_level(batch.sigma), rng)[0]

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        """The levels between which `D` is trained: by default all that the denoiser offers.

        Args:
            noises: for each number of channels the stds of the noise in the batches, in the units of the batch.
        """
        return denoiser.sigma_min, denoiser.sigma_max


def sure(denoiser: Denoiser, batch: Batch, level: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Stein's unbiased estimate of the mean squared error of `D(., level)` over the entries seen.

    With `y = x + sigma n` and `x_t = z + epsilon w`, `z = y + sqrt(level^2 - sigma^2 - epsilon^2) n'`, `w ~ N(0, I)`:
    `E |D(x_t) - x|^2 = E |D(x_t) - y|^2 - m sigma^2 + 2 sigma^2 / epsilon E <w, D(x_t) - D(z)>`, whatever `epsilon`:
    `E <w, D(x_t)> = epsilon E div D(x_t)` (Stein 1981) and `E <w, D(z)> = 0`. It is `PROBE sigma` here.

    That is the Monte-Carlo SURE of Ramani, Blu and Unser (2008) with its first term taken where its probe went: at the
    cost of a level 1 % higher there is no expansion in `epsilon`. Exact derivatives must not be used: a network of
    ReLUs is piecewise linear, its divergence jumps, and the gradient of the divergence with respect to the weights is
    in the jumps, which differentiating twice leaves out.

    Args:
        level: `(B,)`, at least `sigma sqrt(1 + PROBE^2)`.

    Returns:
        The estimate, `(B,)`, and `D(z, sqrt(level^2 - epsilon^2))`, shaped like `batch.x`.
    """
    y, sigma, mask = batch
    seen = torch.ones_like(y) if mask is None else mask.to(y)
    w, n = (torch.randn(y.shape, generator=rng, device=rng.device, dtype=y.dtype).to(y) for _ in range(2))
    low = (level**2 - (PROBE * sigma) ** 2).sqrt()  # of z
    z = y + (per_row(low, y) ** 2 - per_row(sigma, y) ** 2 * seen).clamp(min=0).sqrt() * n
    x_t = z + PROBE * per_row(sigma, y) * w
    D, D_z = denoiser(torch.cat([x_t, z]), torch.cat([level, low])).chunk(2)
    s = per_row(sigma, y)
    each = (D - y).square() - s**2 + 2 * s / PROBE * w * (D - D_z)
    return (seen * each).flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1), D_z
