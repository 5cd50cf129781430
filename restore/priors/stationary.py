"""Coloured Gaussian noise, or texture, of any size that memory holds: its denoiser is the Wiener filter."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.random import Draws
from restore.priors.base import Denoiser, per_row
from restore.priors.covariance import Covariance, Stationary, filtered


class StationaryGaussian(Denoiser):
    """`N(mean, F' diag(spectrum) F)`: independent Fourier modes, the same everywhere, on a picture without borders.

    Args:
        spectrum: variance of each mode, positive, `(C, H, W // 2 + 1)` in the layout of `torch.fft.rfft2` with
            `norm="ortho"` (white noise of std `s` has `s^2` everywhere); of three channels in opponent colours.
        width: `W`, which the spectrum tells only up to one.
        mean: of every number.

    Raises:
        ValueError: the spectrum is not positive, or does not belong to pictures of that width.
    """

    sigma_min = 1e-3
    sigma_max = 1e3

    def __init__(self, spectrum: Tensor, width: int, mean: float = 0.0):
        super().__init__()
        if spectrum.ndim != 3 or spectrum.shape[-1] != width // 2 + 1:
            raise ValueError(f"a spectrum of shape (C, H, {width // 2 + 1}) is needed, got {tuple(spectrum.shape)}")
        if not bool((spectrum > 0).all()):
            raise ValueError(f"a spectrum must be positive, got {float(spectrum.min()):.3g}")
        self.shape = self.size = (*spectrum.shape[:2], width)
        self.mean = mean
        self.register_buffer("spectrum", spectrum)
        self.spectrum: Tensor
        full = torch.cat([spectrum, spectrum[..., 1 : (width + 1) // 2]], -1)  # modes of negative frequency
        self.signal_std = float(full.mean().sqrt())

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        p = self.spectrum.to(x)
        return self.mean + filtered(x - self.mean, p / (p + per_row(sigma, x).square()))

    def covariance(self, x: Tensor, sigma: float) -> Covariance:
        """`Cov[x0 | x_t]`, exact."""
        p = self.spectrum.to(x)
        return Stationary(sigma**2 * p / (p + sigma**2))

    def sample(self, rng: Draws) -> Tensor:
        """Exact draws, `(B, *shape)`, one per row of `rng`."""
        return self.mean + filtered(rng.normal(self.size, like=self.spectrum), self.spectrum.sqrt())
