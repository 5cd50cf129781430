"""How sure a learnt denoiser is, as a table: the power spectra of what it gets wrong, over noise levels.

`spectra[s, c, i, j]` is the mean power of `x0 - D(x0 + sigma_s n, sigma_s)` in opponent channel `c` at the frequencies
`i, j`, which run from 0 to 1/2 cycle per pixel in equal steps; the four quadrants are taken as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Denoiser
from .covariance import CELLS, Stationary, averaged, frequency_cells, opponent


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
        """For pictures shaped as `x`; between the levels of the table by interpolation, beyond them by its ends.

        Gains are solved for to a tenth, which is more than an average over pictures knows of one.
        """
        logs, at = self.sigmas.log(), torch.tensor(sigma).double().log()
        k = int(torch.searchsorted(logs, at).clamp(1, len(logs) - 1))
        share = float(((at - logs[k - 1]) / (logs[k] - logs[k - 1])).clamp(0, 1))
        table = self.spectra[x.shape[1]].clamp(min=1e-12).log()
        level = torch.lerp(table[k - 1], table[k], share)  # (C, K, K)
        H, W = x.shape[-2:]
        rows, columns = (4 * f.abs() - 1 for f in (torch.fft.fftfreq(H), torch.fft.rfftfreq(W)))  # 0..1/2 -> -1..1
        grid = torch.stack(torch.broadcast_tensors(columns[None], rows[:, None]), -1)
        spectrum = F.grid_sample(level[None], grid[None], align_corners=True)[0].exp()
        return Stationary(spectrum.to(x), tol=0.1)
