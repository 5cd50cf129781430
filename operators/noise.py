"""Noise models `p(y | z)` of data `y` given their noiseless value `z = A x`: the one place for likelihoods."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.random import Draws


class NoiseModel(ABC):
    """`p(y | z)`, independent over the entries of `y`."""

    @abstractmethod
    def sample(self, z: Tensor, rng: Draws) -> Tensor:
        """Draw `y` for noiseless data `z`: `(1|B, *oshape) -> (B, *oshape)`, one row for each of the `B` rows of `rng`.

        Raises:
            ValueError: `z` has neither one row nor as many as `rng`.
        """

    @abstractmethod
    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """`log p(y | z)` of each row: `(1|B, *oshape), (B, *oshape) -> (B,)`, constants included."""

    def residual(self, y: Tensor, z: Tensor) -> Tensor:
        """How far `z` is from a value that `y` allows without noise."""
        return y - z

    def fit(self, y: Tensor, z: Tensor) -> NoiseModel:
        """The model of this class that suits data `y` whose noiseless value is `z`: the M step of EM.

        Maximum likelihood unless the model says otherwise.

        Args:
            y: `(1|B, *oshape)`.
            z: `(B, *oshape)`: draws given `y`, over which the expectation is taken. Their mean will not do: it hides
                what the data leave open, and the noise comes out too small.

        Raises:
            TypeError: models of this class cannot be fitted.
            ValueError: no parameter fits, as where `y` and `z` are the same.
        """
        raise TypeError(f"{type(self).__name__} noise cannot be fitted to data: give its parameters")


@dataclass(frozen=True)
class Gaussian(NoiseModel):
    """White Gaussian noise, `y = z + sigma n`.

    Args:
        sigma: standard deviation per real number, in the units of the measurement.

    Raises:
        ValueError: `sigma` is not positive and finite.
    """

    sigma: float

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def sample(self, z: Tensor, rng: Draws) -> Tensor:
        _check_rows(z, rng)
        return z + self.sigma * rng.normal(z.shape[1:], like=z)

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        r = ((y - z) / self.sigma).flatten(1)
        return -0.5 * r.square().sum(1) - r.shape[1] * math.log(self.sigma * math.sqrt(2 * math.pi))

    def fit(self, y: Tensor, z: Tensor) -> Gaussian:
        return Gaussian(float((y - z).double().square().mean().sqrt()))


@dataclass(frozen=True, eq=False)
class Censored(NoiseModel):
    """White Gaussian noise, then saturation, `y = min(max(z + sigma n, lo), hi)`: data at an end of the range say only
    that `z + sigma n` lies there or beyond (Tobin, "Estimation of relationships for limited dependent variables",
    Econometrica 1958).

    Args:
        sigma: standard deviation per real number, in the units of the measurement.
        lo, hi: the ends of the range, one for all data or one for each, `oshape`.

    Raises:
        ValueError: `sigma` is not positive and finite, or a range is empty.
    """

    sigma: float
    lo: float | Tensor = -math.inf
    hi: float | Tensor = math.inf

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)
        if not bool((torch.as_tensor(self.lo) < torch.as_tensor(self.hi)).all()):
            raise ValueError("the range of censored data is empty: lo must lie below hi")

    def sample(self, z: Tensor, rng: Draws) -> Tensor:
        _check_rows(z, rng)
        lo, hi = self._ends(z)
        return (z + self.sigma * rng.normal(z.shape[1:], like=z)).maximum(lo).minimum(hi)

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """A probability of data at an end, a density of the others."""
        lo, hi = self._ends(y)
        within = -0.5 * ((y - z) / self.sigma).square() - math.log(self.sigma * math.sqrt(2 * math.pi))
        above = torch.special.log_ndtr((z - torch.where(y >= hi, hi, 0.0)) / self.sigma)
        below = torch.special.log_ndtr((torch.where(y <= lo, lo, 0.0) - z) / self.sigma)
        return torch.where(y >= hi, above, torch.where(y <= lo, below, within)).flatten(1).sum(1)

    def residual(self, y: Tensor, z: Tensor) -> Tensor:
        lo, hi = self._ends(y)
        r = y - z
        return torch.where(y >= hi, r.clamp(min=0), torch.where(y <= lo, r.clamp(max=0), r))

    def _ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lo, hi = (torch.as_tensor(end, dtype=like.dtype, device=like.device) for end in (self.lo, self.hi))
        return lo, hi


@dataclass(frozen=True)
class Poisson(NoiseModel):
    """Photon counting, `y = gain * Poisson(z / gain)`: mean `z`, variance `gain * z`.

    A rate below 1e-6 counts, and a negative one, is treated as 1e-6 counts, so that the likelihood stays finite.

    Args:
        gain: units of the measurement per count.

    Raises:
        ValueError: `gain` is not positive and finite; on use, `y` holds negative data.
    """

    gain: float

    def __post_init__(self) -> None:
        _positive("gain", self.gain)

    def sample(self, z: Tensor, rng: Draws) -> Tensor:
        _check_rows(z, rng)
        rates = _floored(z / self.gain).cpu().expand(len(rng), *z.shape[1:])
        return self.gain * rng.each(lambda g, i: torch.poisson(rates[i], generator=g)).to(z)

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Of the counts `y / gain`, a probability: it sums to one over `y = 0, gain, 2 gain, ...`."""
        _not_negative(self, y)
        counts, rate = y / self.gain, _floored(z / self.gain)
        return (torch.xlogy(counts, rate) - rate - torch.lgamma(counts + 1)).flatten(1).sum(1)

    def fit(self, y: Tensor, z: Tensor) -> Poisson:
        """The gain that makes the variances `gain z` add up to the squared residuals: not of maximum likelihood, which
        asks that all of `y` are whole multiples of the gain and so knows no gain between."""
        return Poisson(float((y - z).double().square().mean() / z.double().clamp(min=0).mean()))


@dataclass(frozen=True)
class Gamma(NoiseModel):
    """Multiplicative speckle, `y = z * g` with `g ~ Gamma(shape k, mean 1)`: mean `z`, variance `z^2 / k`.

    A mean below 1e-6, and a negative one, is treated as 1e-6.

    Args:
        k: the number of looks.

    Raises:
        ValueError: `k` is not positive and finite; on use, `y` holds negative data.
    """

    k: float

    def __post_init__(self) -> None:
        _positive("k", self.k)

    def sample(self, z: Tensor, rng: Draws) -> Tensor:
        _check_rows(z, rng)
        shape = torch.full(z.shape[1:], self.k, dtype=z.dtype)
        g = rng.each(lambda generator, _: torch._standard_gamma(shape, generator=generator))
        return _floored(z) * g.to(z) / self.k

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        _not_negative(self, y)
        k, mean = torch.as_tensor(self.k, dtype=z.dtype, device=z.device), _floored(z)
        return (torch.xlogy(k - 1, y) - k * y / mean - k * (mean / k).log() - torch.lgamma(k)).flatten(1).sum(1)

    def fit(self, y: Tensor, z: Tensor) -> Gamma:
        """Solves `log k - digamma(k) = mean(y / z - 1 - log(y / z))` by Newton's method (Minka 2002)."""
        _not_negative(self, y)
        ratio = _floored(y.double()) / _floored(z.double())
        s = (ratio - 1 - ratio.log()).mean()
        k = 1 / (2 * s)  # right for large k
        for _ in range(20):  # in 1 / k, which converges from there for any s
            slope = 1 / k - torch.special.polygamma(1, k)
            k = 1 / (1 / k + (k.log() - torch.digamma(k) - s) / (k**2 * slope))
        return Gamma(float(k))


@dataclass(frozen=True)
class PoissonGaussian(NoiseModel):
    """A sensor: photon counting and read-out noise, `y = gain * Poisson(z / gain) + sigma n`.

    Rates are floored as in `Poisson`.

    Args:
        gain: units of the measurement per count.
        sigma: standard deviation of the read-out noise, in the units of the measurement.

    Raises:
        ValueError: `gain` or `sigma` is not positive and finite.
    """

    gain: float
    sigma: float

    def __post_init__(self) -> None:
        _positive("gain", self.gain)
        _positive("sigma", self.sigma)

    def sample(self, z: Tensor, rng: Draws) -> Tensor:
        return Gaussian(self.sigma).sample(Poisson(self.gain).sample(z, rng), rng)

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """`sum_n Poisson(n; r) N(y; gain n, sigma^2)` in float64, over the counts that matter.

        The terms are log-concave in `n`, with curvature `1 / n + (gain / sigma)^2`. Those further from the largest than
        eight standard deviations of that curvature and eight counts are left out: less than 1e-12 of the sum.
        """
        rate, scaled = _floored(z.double() / self.gain), y.double() / self.gain
        s = self.sigma / self.gain
        with torch.no_grad():
            mode = _mode(rate, scaled, s)
            reach = math.ceil(8 * float((1 / (1 / (mode + 1) + 1 / s**2)).sqrt().max()) + 8)
            total, expected = torch.full_like(rate + scaled, -math.inf), torch.zeros_like(rate + scaled)
            for j in range(-reach, reach + 1):
                n = mode + j
                term = torch.xlogy(n, rate) - torch.lgamma(n.clamp(min=0) + 1) - 0.5 * ((scaled - n) / s).square()
                term = torch.where(n >= 0, term, -math.inf)
                total = torch.logaddexp(total, term)
                expected += torch.where(n >= 0, (term - total).exp() * (n - expected), 0.0)
            slope = expected / rate - 1  # d log p / d rate = E[n | y] / rate - 1: no graph through the sum
            constant = rate + math.log(self.sigma * math.sqrt(2 * math.pi))
        return (total - constant + slope * (rate - rate.detach())).flatten(1).sum(1).to(z.dtype)


def _mode(rate: Tensor, scaled: Tensor, s: float) -> Tensor:
    """The count `n >= 0` near the largest term: `log(rate / n) + (scaled - n) / s^2 = 0`, by bisection."""
    lo = torch.minimum(rate, scaled).clamp(min=0.0)
    hi = torch.maximum(rate, scaled).clamp(min=0.0) + 1
    for _ in range(int(math.log2(float((hi - lo).max()) + 1)) + 2):  # down to half a count
        middle = (lo + hi) / 2
        rising = (rate / middle).log() + (scaled - middle) / s**2 > 0
        lo, hi = torch.where(rising, middle, lo), torch.where(rising, hi, middle)
    return ((lo + hi) / 2).round()


def _check_rows(z: Tensor, rng: Draws) -> None:
    if len(z) not in (1, len(rng)):
        raise ValueError(f"{len(z)} rows of noiseless data, but {len(rng)} random generators: one per row is needed")


def _floored(rate: Tensor) -> Tensor:
    return rate.clamp(min=1e-6)


def _not_negative(noise: NoiseModel, y: Tensor) -> None:
    if bool((y < 0).any()):
        raise ValueError(f"{noise} cannot give negative data, but the smallest value of y is {float(y.min()):.3g}")


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a positive number, got {value}")
