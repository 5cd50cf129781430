"""How sure a learnt denoiser is, as a table: the power spectra of what it gets wrong, over noise levels.

`spectra[s, c, i, j]` is the mean power of `x0 - D(x0 + sigma_s n, sigma_s)` in opponent channel `c` at the frequencies
`i, j`, which run from 0 to 1/2 cycle per pixel in equal steps; the four quadrants are taken as one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .base import Denoiser, per_row
from .covariance import CELLS, Stationary, averaged, frequency_cells, opponent

ABOVE = 1.2  # times the noise of noisy pictures: nearer to it, what is seen is that noise


def residual_spectra(
    denoiser: Denoiser, pictures: Sequence[Tensor], sigmas: Sequence[float], *, seed: int = 0
) -> Tensor:
    """Measure the table on clean pictures of one size and kind, in the units of the denoiser.

    Args:
        pictures: batches `(B, C, H, W)`, sides of at least 32.
        sigmas: the noise levels.

    Returns:
        `(S, C, CELLS + 1, CELLS + 1)`.
    """
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for sigma in sigmas:
        powers = []
        for x in pictures:
            noise = torch.randn(x.shape, generator=rng).to(x)
            with torch.no_grad():
                wrong = x - denoiser(x + sigma * noise, sigma)
            powers.append(_power(wrong))
        rows.append(torch.stack(powers).mean(0))
    return torch.stack(rows)


def residual_spectra_of_noisy(
    denoiser: Denoiser, pictures: Sequence[tuple[Tensor, Tensor]], sigmas: Sequence[float], *, seed: int = 0
) -> Tensor | None:
    """The same table from noisy pictures alone, in the units of the denoiser.

    From `y = x + sigma_n n` comes `x_t = y + sqrt(sigma^2 - sigma_n^2) n'`. With `a = sigma_n^2 / sigma^2` the rest
    `y - a x_t - (1 - a) D(x_t, sigma)` is `(1 - a) (x - D)` and, independent of it whatever `D`, white noise of
    variance `(1 - a) sigma_n^2`: the regression of `sigma_n n` on `x_t - x`. So the power of `x - D` is that of the
    rest, less that noise, over `(1 - a)^2`: without bias, but for a floor of one standard error of that noise.

    Below `ABOVE` times the noise a mode goes on as one of a Gaussian would, whose `1 / power - 1 / sigma^2` is the same
    at every level.

    Args:
        pictures: batches `(B, C, H, W)`, each with the std of the noise of its rows, `(B,)`.
        sigmas: the noise levels, increasing.

    Returns:
        `(S, C, CELLS + 1, CELLS + 1)`; `None` where no level lies high enough above the noise.
    """
    rng = torch.Generator().manual_seed(seed)
    rows: list[Tensor | None] = []
    for sigma in sigmas:
        powers, floors = [], []
        for y, own in pictures:
            if sigma < ABOVE * float(own.max()):
                continue
            a = per_row(own, y).square() / sigma**2
            extra = (sigma**2 - per_row(own, y).square()).sqrt()
            x_t = y + extra * torch.randn(y.shape, generator=rng).to(y)
            with torch.no_grad():
                rest = (y - a * x_t) / (1 - a) - denoiser(x_t, sigma)
            noise = float((own**2 / (1 - own**2 / sigma**2)).mean())
            powers.append(_power(rest) - noise)
            floors.append(noise)
        count = sum(len(y) for y, _ in pictures) * modes_per_cell(*pictures[0][0].shape[-2:]) if powers else 1.0
        rows.append(torch.stack(powers).mean(0).maximum(max(floors) / count**0.5) if powers else None)
    first = next((i for i, row in enumerate(rows) if row is not None), None)
    if first is None:
        return None
    lowest = rows[first]
    assert lowest is not None
    precision = (1 / lowest.clamp(max=sigmas[first] ** 2) - 1 / sigmas[first] ** 2).clamp(min=0)
    below = [1 / (precision + 1 / sigma**2) for sigma in sigmas[:first]]
    return torch.stack([*below, *(row for row in rows if row is not None)])


def modes_per_cell(height: int, width: int) -> Tensor:
    """How many independent modes of a tapered picture each cell of the table is the mean of, `(CELLS + 1, CELLS + 1)`.

    A Hann window links neighbours: of its squared transform only 1 / 1.94 as many count along each axis.
    """
    count = torch.bincount(frequency_cells(height, width), minlength=(CELLS + 1) ** 2)
    return (count / 1.94**2).clamp(min=1).view(CELLS + 1, CELLS + 1)


def _power(wrong: Tensor) -> Tensor:
    """Mean power of the modes around each node of the table, `(B, C, H, W) -> (C, CELLS + 1, CELLS + 1)`."""
    H, W = wrong.shape[-2:]
    taper = torch.outer(*(torch.hann_window(n, periodic=False) for n in (H, W))).to(wrong)  # no edges, no leakage
    turned = torch.fft.rfft2(torch.einsum("ij,bj...->bi...", opponent(wrong), wrong) * taper, norm="ortho")
    power = turned.abs().square().mean(0) / taper.square().mean()
    return averaged(power, frequency_cells(H, W)).unflatten(1, (CELLS + 1, CELLS + 1))


class SpectralTable:
    """A table for each number of channels, read at any noise level and size of picture.

    Args:
        sigmas: `(S,)`, increasing.
        spectra: for each number of channels, `(S, C, K, K)`.
    """

    def __init__(self, sigmas: Tensor, spectra: dict[int, Tensor]):
        self.sigmas, self.spectra = sigmas.double(), {c: s.float() for c, s in spectra.items()}

    def covariance(self, x: Tensor, sigma: float) -> Stationary:
        """For pictures shaped as `x`; between the levels of the table by interpolation, beyond them by its ends."""
        level = log_between(self.sigmas, self.spectra[x.shape[1]], sigma)  # (C, K, K)
        rows, columns = _hats(*x.shape[-2:])
        return Stationary((rows @ level @ columns.T).exp().to(x), rough=True)


@lru_cache(maxsize=16)
def _hats(height: int, width: int) -> list[Tensor]:
    """Weights of the nodes of a table, linear between them: at the `N` frequencies of rows and of half as many columns,
    `(N, CELLS + 1)` each."""
    frequencies = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    return [(1 - (2 * CELLS * f.abs()[:, None] - torch.arange(CELLS + 1)).abs()).clamp(min=0) for f in frequencies]


def log_between(sigmas: Tensor, powers: Tensor, sigma: float) -> Tensor:
    """The logarithm of a table `(S, ...)` at a noise level: between those of its rows by interpolation."""
    levels = sigmas.tolist()
    k = min(max(bisect_left(levels, sigma), 1), len(levels) - 1)
    share = min(max(math.log(sigma / levels[k - 1]) / math.log(levels[k] / levels[k - 1]), 0.0), 1.0)
    rows = powers[k - 1 : k + 1].clamp(min=1e-12).log()
    return torch.lerp(rows[0], rows[1], share)
