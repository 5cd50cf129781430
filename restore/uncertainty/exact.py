"""How far a sampler's draws are from the exact posterior, each number beside what exact draws would give.

With an analytic prior and a linear-Gaussian problem the posterior is a Gaussian mixture in closed form. Whatever is
computed from the sampler's `S` draws is also computed from several sets of `S` exact draws: their mean is the value to
expect of an exact sampler and their spread is the standard error, with the finite number of draws, the correlation
between pixels and the shape of the posterior all counted in. Nothing is assumed to be Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from operators.random import generator
from restore.priors.analytic import GaussianMixture


@dataclass(frozen=True)
class Statistic:
    """One number of the comparison.

    Attributes:
        value: from the sampler's draws.
        expected: mean of the same number over sets of as many exact draws.
        se: its standard deviation over these sets.
        floor: the smallest possible value is the best one: only an excess over `expected` speaks against the sampler.
    """

    value: float
    expected: float
    se: float
    floor: bool = False

    @property
    def z(self) -> float:
        """Standard errors between the sampler and an exact one; an unexplained deviation is positive."""
        z = (self.value - self.expected) / self.se if self.se > 0 else 0.0 if self.value == self.expected else torch.inf
        return z if self.floor else abs(z)


@dataclass(frozen=True)
class Exactness:
    """Draws against the exact posterior.

    Attributes:
        mean_error: rms over directions of the draws' mean minus the posterior's, in posterior standard deviations.
        variance_ratio: variance of the draws over that of the posterior, averaged over whitened directions.
        variance_error: rms over whitened directions of (variance ratio - 1): too wide in one direction and too narrow
            in another do not cancel.
        coverage: share of the exact posterior's mass inside the draws' central interval, averaged over pixels.
        mode_weights: total variation between the mixture weights and the draws' mean responsibilities, 0..1.
    """

    mean_error: Statistic
    variance_ratio: Statistic
    variance_error: Statistic
    coverage: Statistic
    mode_weights: Statistic

    def deviations(self, tolerance: float = 5.0) -> dict[str, Statistic]:
        """The statistics further than `tolerance` standard errors from an exact sampler's; empty if it passes."""
        both = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: s for name, s in both.items() if not s.z <= tolerance}


def exactness(
    draws: Tensor, posterior: GaussianMixture, *, level: float = 0.9, sets: int = 24, seed: int = 0
) -> Exactness:
    """Compare draws with the exact posterior.

    Args:
        draws: `(S, *shape)`, independent draws of one posterior.
        posterior: the exact one, `prior.posterior(problem)`.
        level: of the central interval whose coverage is measured.
        sets: sets of exact draws behind each standard error (which is then known to about `1 / sqrt(2 sets)`).
        seed: of the exact draws.

    Raises:
        ValueError: fewer than two draws, or of another shape than the posterior.
    """
    if len(draws) < 2 or draws.shape[1:] != posterior.means.shape[1:]:
        raise ValueError(
            f"exactness needs at least 2 draws of shape {tuple(posterior.means.shape[1:])}, got {tuple(draws.shape)}"
        )
    measure = _Measure(posterior, level)
    value = measure(draws.double())
    g = generator(seed, len(draws))
    null = torch.stack([measure(_exact_draws(posterior, len(draws), g)) for _ in range(sets)])
    expected, se = null.mean(0), null.std(0)
    return Exactness(
        *(
            Statistic(v, e, s, floor=f.name in ("mean_error", "variance_error", "mode_weights"))
            for f, v, e, s in zip(fields(Exactness), value.tolist(), expected.tolist(), se.tolist(), strict=True)
        )
    )


class _Measure:
    """The numbers of `Exactness`, in its order, for any set of draws from what should be `posterior`."""

    def __init__(self, posterior: GaussianMixture, level: float):
        self.posterior = posterior
        self.tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        self.centre = posterior.mean.flatten()
        self.L = torch.linalg.cholesky(posterior.covariance_matrix)
        self.centres = posterior.means.flatten(1)  # (K, d)
        self.sds = posterior.covariances.diagonal(dim1=1, dim2=2).sqrt()  # (K, d)

    def __call__(self, draws: Tensor) -> Tensor:
        flat = draws.flatten(1)
        white = torch.linalg.solve_triangular(self.L, (flat - self.centre).T, upper=False)  # (d, S)
        variances = white.var(1)
        low, high = torch.quantile(flat, self.tails, dim=0)
        mass = self._cdf(high) - self._cdf(low)
        shares = self.posterior.responsibilities(draws).mean(0)
        return torch.stack(
            [
                white.mean(1).square().mean().sqrt(),
                variances.mean(),
                (variances - 1).square().mean().sqrt(),
                mass.mean(),
                (shares - self.posterior.weights).abs().sum() / 2,
            ]
        )

    def _cdf(self, x: Tensor) -> Tensor:
        """Marginal distribution function of each pixel, `(d,) -> (d,)`."""
        return self.posterior.weights @ torch.special.ndtr((x - self.centres) / self.sds)


def _exact_draws(posterior: GaussianMixture, count: int, g: torch.Generator) -> Tensor:
    """`(count, *shape)`, from one generator: all at once, where `posterior.sample` goes draw by draw."""
    k = torch.multinomial(posterior.weights, count, replacement=True, generator=g)
    n = torch.randn(count, posterior.eigenvalues.shape[1], generator=g, dtype=torch.float64)
    out = torch.empty_like(n)
    for j, (Q, lam) in enumerate(zip(posterior.eigenvectors, posterior.eigenvalues, strict=True)):
        out[k == j] = ((n[k == j] @ Q) * lam.sqrt()) @ Q.T
    return posterior.means[k] + out.reshape(count, *posterior.means.shape[1:])
