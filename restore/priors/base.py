"""What a prior is: a denoiser `D(x, sigma) = E[x0 | x0 + sigma n = x]`, and nothing more.

The score follows by Tweedie's formula, `(D(x, sigma) - x) / sigma**2` (Robbins 1956; Efron 2011, eq. 1.4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .covariance import Covariance, Scalar, Times


class Denoiser(nn.Module, ABC):
    """`D(x, sigma)`: the posterior mean of a clean signal given a copy with white Gaussian noise of std `sigma`.

    Attributes:
        shape: shape of one signal, `(C, *spatial)`; an entry is `None` where any size is accepted.
        sigma_min, sigma_max: the noise levels (signal units) between which the denoiser may be trusted;
            ladders are clipped to them.
        signal_std: standard deviation of clean signals, for the default covariance.
        rho: not 0: this is the score of noisy pictures in `restore.denoisers.variable.Variable(rho)`.
    """

    shape: tuple[int | None, ...]
    sigma_min: float
    sigma_max: float
    signal_std: float = 0.5
    rho: float = 0.0

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Denoise `x` of shape `(B, C, *spatial)`; `sigma` is a scalar or has one entry per row, shape `(B,)`."""

    def covariance(self, x: Tensor, sigma: float) -> Covariance:
        """A model of `Cov[x0 | x0 + sigma n = x]`: by default that of white signals with a variance of `signal_std^2`.

        Source of the default: Song et al. 2023 (PiGDM).
        """
        return Scalar(sigma**2 * self.signal_std**2 / (sigma**2 + self.signal_std**2))

    def jvp(self, x: Tensor, sigma: float, v: Tensor) -> Tensor:
        """`(dD/dx) v`, by forward differentiation: `(B, *shape) -> (B, *shape)`."""
        return torch.func.jvp(lambda x: self(x, sigma), (x.contiguous(),), (v.contiguous(),))[1]

    def sources(self) -> list[Denoiser]:
        """The priors of the independent sources that a signal is packed of: itself where it is one."""
        return [self]

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether one signal of this shape (no batch axis) fits."""
        return len(shape) == len(self.shape) and all(
            w is None or w == s for w, s in zip(self.shape, shape, strict=True)
        )


class Rescaled(Denoiser):
    """A prior learnt in other units: `D'(x, s) = (D(a x + b, a s) - b) / a` with `a = scale`, `b = shift`.

    `Rescaled(prior, scale=2, shift=-1)` serves pictures in `[0, 1]` with a prior learnt on `[-1, 1]`.
    """

    def __init__(self, prior: Denoiser, scale: float, shift: float = 0.0):
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.prior, self.scale, self.shift = prior, float(scale), float(shift)
        self.shape = prior.shape
        self.sigma_min, self.sigma_max = prior.sigma_min / scale, prior.sigma_max / scale
        self.signal_std = prior.signal_std / scale
        self.rho = prior.rho

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return (self.prior(x * self.scale + self.shift, sigma * self.scale) - self.shift) / self.scale

    def covariance(self, x: Tensor, sigma: float) -> Covariance:
        own = self.prior.covariance(torch.add(x.new_tensor(self.shift), x, alpha=self.scale), sigma * self.scale)
        return Times(own, 1 / self.scale**2)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return self.prior.accepts(shape)


class Wrapper(Denoiser):
    """Answers as `prior` does, in every way: to watch what is asked of a prior, override what is to be seen."""

    def __init__(self, prior: Denoiser):
        super().__init__()
        self.prior = prior
        self.shape, self.sigma_min, self.sigma_max = prior.shape, prior.sigma_min, prior.sigma_max
        self.signal_std, self.rho = prior.signal_std, prior.rho

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self.prior(x, sigma)

    def covariance(self, x: Tensor, sigma: float) -> Covariance:
        return self.prior.covariance(x, sigma)

    def jvp(self, x: Tensor, sigma: float, v: Tensor) -> Tensor:
        return self.prior.jvp(x, sigma, v)

    def sources(self) -> list[Denoiser]:
        return self.prior.sources()

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return self.prior.accepts(shape)


class Beyond(Wrapper):
    """A prior that is asked above its own highest level too, where the signal is so faint that its mean is linear in
    what is seen: `D(x, sigma) = r D(r x, s)` with `s` that level and `r = s / sigma`.

    Args:
        sigma_max: the highest level it is to be asked at.
    """

    def __init__(self, prior: Denoiser, sigma_max: float):
        super().__init__(prior)
        self.sigma_max = max(sigma_max, prior.sigma_max)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        level = per_row(sigma, x)
        r = (self.prior.sigma_max / level).clamp(max=1)
        return r * self.prior(r * x, (r * level).flatten())

    def covariance(self, x: Tensor, sigma: float) -> Covariance:
        r = min(self.prior.sigma_max / sigma, 1.0)
        return self.prior.covariance(r * x, r * sigma)

    def jvp(self, x: Tensor, sigma: float, v: Tensor) -> Tensor:
        return Denoiser.jvp(self, x, sigma, v)


def per_row(sigma: Tensor | float, x: Tensor) -> Tensor:
    """`sigma` as a tensor of shape `(B, 1, ..., 1)` or `(1, ..., 1)`, in the dtype and on the device of `x`."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
    if sigma.numel() not in (1, x.shape[0]):
        raise ValueError(f"sigma has {sigma.numel()} entries for a batch of {x.shape[0]}: give one, or one per row")
    return sigma.reshape(-1, *(1,) * (x.ndim - 1))
