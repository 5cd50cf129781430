"""FPS: particles that follow data noised along with the signal, by exact conditioning of each step.

Use: small linear problems, where being exact is worth thousands of calls; not pictures.

Dou and Song, "Diffusion Posterior Sampling for Linear Inverse Problem Solving: A Filtering Perspective", ICLR 2024
(FPS-SMC).

A path of noisier and noisier data is drawn for each draw, `y_t = y + A W_t + e_t`, `W_t` the noise of the signal, of
variance `sigma^2`, and particles filter it, with `tau = sigma_next`:

- `y' = y + (tau/sigma)^2 (y_t - y) + noise`: the path, from the top down,
- particles are resampled by `w psi(x)` where that has become uneven, and divided by `psi(x)`,
- `x' ~ p(x' | x, y_t, y')`, proportional to `p(x' | x) p(y' | x', x, y_t)`: a Gaussian, drawn exactly,
- `w' = w p(y' | x, y_t)`; in the end one particle is chosen by its weight.

Given `x_t`, the noise in `y_t` has the variance `s_t^2 = sigma_y^2 + c^2 sigma^2`; that in `y'` is its past, of mean
`rho (y_t - A x)` and variance `s'^2 (1 - rho)`, `rho = s'^2 / s_t^2`. `psi(x)` looks ahead to the end of the path:
`p(y | x_t, y_t)` with `p(x0 | x_t) = N(D, r^2 I)`, `r^2 = sigma^2 s^2 / (sigma^2 + s^2)`, `s` the prior's
`signal_std`. No gradient through the denoiser.

Claim: exact as particles and steps grow. The path is drawn from its law given `y`, whatever the signal; filtered
exactly, its end has the law of the signal given `y`. With many particles a draw has the law of what the prior's chain
of `steps` steps has at its last level, given `y`, denoised; that chain tends to the prior as steps grow, and
`sigma_min` has to be small against `sigma_y`. The particles this takes grow exponentially with what the data say
about numbers that were not measured, for these are drawn blindly and then selected, and so with the dimension. On
pictures one particle soon carries all the weight; `effective_sample_size` tells. Tiles of one picture choose their
particles by themselves, so that seams may show.

Departures: EDM coordinates. The released code conditions each step on `y_t` as if its noise were fresh, of variance
`sigma_y^2`, while its path carries the one noise that is in `y`: data are counted anew at each level. Here that noise
is carried along; it grows by fresh noise, `c` times that of the signal, without which it would have to be guessed
right at the top. The look-ahead is that of auxiliary particle filters (Pitt and Shephard 1999): without it several
times the particles are needed. The mean of the step is extrapolated (rule `sde` of the integrators).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.random import Draws, white_data
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.conditioning import exact_move
from restore.samplers.integrators import State, extrapolated, kernel
from restore.samplers.particles import Particles, ParticleSampler, choose, evidence, resample


class Filtered(NamedTuple):
    """Populations of particles and the data they follow."""

    x: Tensor  # (B P, *ishape)
    log_w: Tensor  # (B, P)
    path: Tensor  # y_t - y, (B, *oshape)
    before: State  # where the particles come from


@dataclass(frozen=True, kw_only=True)
class FPS(ParticleSampler):
    """FPS for linear operators. `c` and the particles were chosen on the exactness problems.

    Args:
        c: noise added to the data per noise added to the signal, as standard deviations.
    """

    exact: ClassVar[bool] = True
    needs: ClassVar[type] = LinearOperator

    particles: int = 32
    c: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, None, "c", open=True)

    def init(self, problem: Problem, prior: Denoiser, rng: Draws) -> Filtered:
        A, sigma_y = problem.linear_gaussian
        sigma, rows = float(self.ladder(prior)[0]), Particles(rng, self.particles)
        path = math.sqrt(self._above(sigma, prior)) * self._noise(A, rng, problem.y)
        s2 = sigma_y**2 + self.c**2 * self._above(sigma, prior)
        start = problem.y.new_zeros(len(rows), *A.ishape)
        x = exact_move(A, math.sqrt(s2), self.each(problem.y + path), start, sigma**2, rows)
        return Filtered(x, x.new_zeros(len(rng), self.particles, dtype=torch.float64), path, State(x))

    def step(
        self, x: Filtered, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws
    ) -> Filtered:
        A, sigma_y = problem.linear_gaussian
        tau = sigma_next
        if tau == 0:
            end = prior(x.x[choose(x.log_w, rng)], sigma)
            return x._replace(x=end, log_w=torch.zeros_like(x.log_w[:, :1]))
        above, below = self._above(sigma, prior), self._above(tau, prior)
        path = below / above * x.path + math.sqrt(below * (1 - below / above)) * self._noise(A, rng, x.path)
        before, after = problem.y + x.path, problem.y + path
        s2, s2_next = (sigma_y**2 + self.c**2 * v for v in (above, below))
        D, scale, carried = prior(x.x, sigma), prior.signal_std, sigma_y**2 / s2
        ahead = self.each(problem.y.sub(before, alpha=carried)), D.sub(x.x, alpha=carried)
        r2 = sigma**2 * scale**2 / (sigma**2 + scale**2)
        log_psi = evidence(A, ahead[0], r2, sigma_y * math.sqrt(1 - carried), x=ahead[1]).reshape(x.log_w.shape)
        kept, log_w = resample(x.log_w + log_psi, self.ess_threshold, rng)
        log_w = log_w - log_psi.flatten()[kept].reshape(log_w.shape)
        here, D = x.x[kept], D[kept]
        was = x.before if x.before.m is None else x.before._replace(m=x.before.m[kept])
        mean, std = kernel(here, extrapolated(was, D, sigma, tau), sigma, tau)
        rho = s2_next / s2
        noise = math.sqrt(s2_next * (1 - rho))
        left = self.each(after.sub(before, alpha=rho)), mean.sub(here, alpha=rho)
        log_p = evidence(A, left[0], std**2, noise, x=left[1])
        there = mean + exact_move(A, noise, *left, std**2, Particles(rng, self.particles))
        return Filtered(there, log_w + log_p.reshape(log_w.shape), path, State(here, D, sigma))

    def _above(self, sigma: float, prior: Denoiser) -> float:
        """Variance of the signal's noise at `sigma`, beyond that at the last level, where the path ends in `y`."""
        return sigma**2 - float(self.ladder(prior)[-2]) ** 2

    def _noise(self, A: LinearOperator, rng: Draws, like: Tensor) -> Tensor:
        """What the path gains per noise of the signal: covariance `A A' + c^2 I`, `(B, *oshape)`."""
        svd = A.svd()
        if svd is not None and svd.rank == math.prod(A.oshape) and not rng.tiled:
            return svd.coloured(lambda s: (s.square() + self.c**2).sqrt(), rng.normal(A.oshape, like=like))
        return A.forward(rng.normal(A.ishape, like=like)) + self.c * white_data(A, rng, like)
