"""Which noise, and how strong? The member of the Tweedie family, `Var[y | x] = phi x^rho`, from noisy pictures.

`estimate_law` (ours; the default) needs the pictures alone: blocks of eight pixels, the variance of the noise in each
after a mask that removes what is smooth along rows or columns, and the power of their brightness with which the
variance of the quietest grows. Texture can only add variance, hence these. The mask is Immerkaer's (*Fast Noise
Variance Estimation*, CVIU 1996), applied twice, which most texture passes less.

`law_from_score` is the method of Kim, Kwon and Ye (CVPR 2022), which looks at how the score changes where a little
noise is added to `y`; its levels are medians that take most pixels to lie in flat places.
Departures: the change of the score is its derivative along the noise, which single precision survives; the level is
not rounded. Of the rule for the type, kept as their code has it, we could follow no derivation, and given the exact
score of flat pictures it calls every noise Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from operators.noise import Gamma, Gaussian, NoiseModel, Poisson

from .tweedie import DARKEST, Score, Tweedie

BLOCK = 8
BINS = 10  # of brightness
DIM = 0.02  # of the brightest block: relative brightness is not known below
# Of the blocks. In flat blocks of white noise these quantiles of the estimated variance are that much of the true one.
TYPE_QUANTILE = 0.1
LEVEL_QUANTILE, LEVEL_SHARE = 0.05, 0.457
FEWEST = 4 * BINS  # blocks


def as_noise(law: Tweedie) -> NoiseModel:
    """Gaussian, Poisson or Gamma noise: the one whose power is nearest to the law's."""
    kinds = (lambda: Gaussian(law.phi**0.5), lambda: Poisson(law.phi), lambda: Gamma(1 / law.phi))
    return kinds[min(2, round(law.rho))]()


def limits_of(limits: tuple[float, float] | None, rho: float | None) -> tuple[float, float] | None:
    """The values at which pictures clip, but black where the noise of that type vanishes there by itself."""
    return (-math.inf, limits[1]) if limits is not None and rho else limits


def estimate_law(
    pictures: Sequence[np.ndarray], rho: float | None = None, limits: tuple[float, float] | None = None
) -> Tweedie | None:
    """Type and level of the noise that all pictures share, from the pictures alone; `rho` is 0, 1 or 2.

    Args:
        pictures: each `(C, H, W)`, noisy. More brightnesses tell types apart more surely.
        rho: the type, where it is known.
        limits: the values at which the pictures clip. Blocks in which a pixel does are left out.

    Returns:
        The law, in the units of the pictures; `None` where there are fewer than 40 usable blocks.
    """
    parts = [_blocks(plane, limits) for picture in pictures for plane in picture]
    mean, variance = (np.concatenate(each) for each in zip(*parts, strict=True))
    # A block without any noise at all is a painted area.
    usable = variance > 0
    if rho is None or rho > 0:
        usable &= mean > DIM * mean.max(initial=0.0)
    mean, variance = mean[usable], variance[usable]
    if len(mean) < FEWEST:
        return None
    if rho is None:
        rho = float(min(max(round(_power(mean, variance)), 0), 2))
    return Tweedie(rho, float(np.quantile(variance / mean**rho, LEVEL_QUANTILE) / LEVEL_SHARE))


def _blocks(plane: np.ndarray, limits: tuple[float, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the noise of each block, `(n,)`."""
    y = plane.astype(np.float64)
    inside = y[2:-2, 2:-2]
    height, width = (n - n % BLOCK for n in inside.shape)
    if not (height and width):
        return np.empty(0), np.empty(0)
    residual = np.diff(np.diff(y, 4, 0), 4, 1) / 70  # white noise keeps its variance

    def per_block(values: np.ndarray) -> np.ndarray:
        cut = values[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        return cut.mean((1, 3)).ravel()

    mean, variance = per_block(inside), per_block(residual**2)
    if limits is not None:
        whole = per_block(((inside <= limits[0]) | (inside >= limits[1])).astype(float)) == 0
        mean, variance = mean[whole], variance[whole]
    return mean, variance


def _power(mean: np.ndarray, variance: np.ndarray) -> float:
    """`d log variance / d log mean` of the quietest blocks: weighted median of the slopes between bins (Theil-Sen)."""
    power, order = 1.0, np.argsort(mean)
    first, second = np.triu_indices(BINS, 1)
    for _ in range(3):  # within a bin, quiet is what is quiet for its brightness
        bins = np.array_split(order, BINS)
        x = np.array([np.log(mean[i]).mean() for i in bins])
        y = np.array([np.log(np.quantile(variance[i] / mean[i] ** power, TYPE_QUANTILE)) for i in bins])
        run, rise = x[second] - x[first], y[second] - y[first]
        apart = run > 0.05
        if not apart.any():
            return 0.0  # of one brightness, any type would do
        slopes, weights = rise[apart] / run[apart], run[apart]
        by_slope = np.argsort(slopes)
        total = weights[by_slope].cumsum()
        power += float(slopes[by_slope][np.searchsorted(total, total[-1] / 2)])
    return power


def law_from_score(score: Score, y: Tensor, rho: float | None = None, *, seed: int = 0) -> Tweedie:
    """Type and level by the score alone, nearly as published; `rho` is 0, 1 or 2.

    Args:
        score: `s(y)`, the gradient of the log density of noisy pictures; differentiable in forward mode.
        y: `(B, *shape)`.
        rho: the type, where it is known.

    Raises:
        ValueError: the median is no level: this is not the score of noisy pictures.
    """
    n = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y)
    s, change = torch.func.jvp(score, (y.contiguous(),), (n,))[:2]
    lit = y > DARKEST
    y, n, s, change = (t[lit].double() for t in (y, n, s, change))
    if rho is None:
        power = _published_power(y, n, s, change)
        rho = 0.0 if power < 0.9 else 1.0 if power < 1.9 else 2.0
    if rho == 0:
        phi = (-n / change).clamp(0, 1)
    elif rho == 1:
        phi = -y + (y**2 - 2 * n / change).sqrt()
    else:
        phi = 1 / (1 - y**2 * change / n)
    return Tweedie(rho, float(phi.nanmedian()))


def _published_power(y: Tensor, n: Tensor, s: Tensor, change: Tensor) -> float:
    """The larger root of `a rho^2 + a (b - 2) rho + w - 2 a b = 0` with `y' = y + 1e-5 n`, `a = log(y' / y)`,
    `b = 2 y s`, `w = 2 (y' s' - y s)`, both averaged over the pixels with `|w / (b + 2.2)| <= 1e-6`."""
    a, b, w = 1e-5 * n / y, 2 * y * s, 2e-5 * (n * s + y * change)
    still = (w / (b + 2.2)).abs() <= 1e-6
    b, w = b[still].mean(), w[still].mean()
    first = a * (b - 2)
    root = (first**2 - 4 * a * (w - 2 * a * b)).sqrt()
    roots = [((sign * root - first) / (2 * a)).nanmean() for sign in (1, -1)]
    return max(float(torch.stack(roots).nan_to_num(0.0).max()), 0.0)
