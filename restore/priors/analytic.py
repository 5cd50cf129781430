"""Priors whose denoiser, samples and posterior are known exactly: the yardstick every sampler is held against.

The formulas are those of conditioning a joint Gaussian; for the mixture see Cardoso et al. 2024 (MCG-diff), App. B.
Covariances are dense, so signals should stay below a few thousand numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.linalg import dense
from operators.random import Draws
from restore.priors.base import Denoiser, per_row
from restore.priors.covariance import Covariance, Mixture
from restore.problem import Problem


class GaussianMixture(Denoiser):
    """`p(x) = sum_k weights[k] N(x; means[k], covariances[k])`.

    Args:
        weights: `(K,)`, positive; normalised here.
        means: `(K, *shape)`.
        covariances: `(K, d, d)` or one `(d, d)` shared by all, `d = prod(shape)`, symmetric positive semi-definite.

    Raises:
        ValueError: shapes do not agree, or a covariance is not symmetric positive semi-definite.
    """

    sigma_min = 1e-3
    sigma_max = 1e3

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor):
        super().__init__()
        K, self.shape = means.shape[0], tuple(means.shape[1:])
        d = math.prod(means.shape[1:])
        weights, means = weights.double(), means.double()
        covariances = covariances.double().expand(K, -1, -1) if covariances.ndim == 2 else covariances.double()
        if weights.shape != (K,) or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {K} positive numbers, one per mean, got {weights}")
        if covariances.shape != (K, d, d):
            raise ValueError(f"covariances must have shape {(K, d, d)} or {(d, d)}, got {tuple(covariances.shape)}")
        scale = covariances.abs().amax()
        if not torch.allclose(covariances, covariances.mT, atol=1e-8 * float(scale)):
            raise ValueError("covariances must be symmetric")
        eigenvalues, eigenvectors = torch.linalg.eigh(covariances)
        if float(eigenvalues.min()) < -1e-8 * float(scale):
            raise ValueError(f"covariances must be positive semi-definite, smallest eigenvalue {eigenvalues.min():.3g}")
        for name, value in {
            "weights": weights / weights.sum(),
            "means": means,
            "eigenvalues": eigenvalues.clamp(min=0),  # (K, d)
            "eigenvectors": eigenvectors,  # (K, d, d), columns
        }.items():
            self.register_buffer(name, value)
        self.signal_std = math.sqrt(float(self.covariance_matrix.diagonal().mean()))
        self.weights: Tensor
        self.means: Tensor
        self.eigenvalues: Tensor
        self.eigenvectors: Tensor

    @property
    def covariances(self) -> Tensor:
        """`(K, d, d)`."""
        return (self.eigenvectors * self.eigenvalues[:, None]) @ self.eigenvectors.mT

    def _split(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Deviations in each eigenbasis `(K, B, d)`, noisy variances `(K, 1|B, d)`, log joint densities `(K, B)`."""
        means, Q, lam = (t.to(x) for t in (self.means.flatten(1), self.eigenvectors, self.eigenvalues))
        z = (x.flatten(1)[None] - means[:, None]) @ Q  # (K, B, d)
        v = lam[:, None] + per_row(sigma, x).reshape(1, -1, 1).square()  # (K, 1|B, d)
        v = v.clamp(min=torch.finfo(x.dtype).tiny)
        logit = self.weights.to(x).log()[:, None] - 0.5 * (z.square() / v + v.log()).sum(-1)  # (K, B)
        return z, v, logit

    def _components(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Of `p(x0 | x_t)`: weights `(K, B)`, means `(K, B, d)`, variances in the eigenbases `(K, 1|B, d)`."""
        z, v, logit = self._split(x, sigma)
        Q, lam, means = (t.to(x) for t in (self.eigenvectors, self.eigenvalues, self.means.flatten(1)))
        shrink = lam[:, None] / v
        each = means[:, None] + (z * shrink) @ Q.mT
        return logit.softmax(0), each, per_row(sigma, x).reshape(1, -1, 1).square() * shrink

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        weights, each, _ = self._components(x, sigma)
        return (weights[..., None] * each).sum(0).reshape(x.shape)

    def covariance(self, x: Tensor, sigma: float) -> Covariance:
        """`Cov[x0 | x_t]`, exact."""
        weights, each, variances = self._components(x, sigma)
        mean = (weights[..., None] * each).sum(0)
        return Mixture(weights, each - mean, self.eigenvectors.to(x), variances)

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """`log p(x; sigma)`, the density of the signal with noise of std `sigma`: `(B, *shape) -> (B,)`."""
        z, _, logit = self._split(x, sigma)
        return logit.logsumexp(0) - 0.5 * z.shape[-1] * math.log(2 * math.pi)

    def responsibilities(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """`p(k | x)`: `(B, *shape) -> (B, K)`."""
        return self._split(x, sigma)[2].softmax(0).T

    def sample(self, rng: Draws) -> Tensor:
        """Exact draws, `(B, *shape)` in float64, one per row of `rng`."""
        shape = tuple(self.means.shape[1:])

        def one(g: torch.Generator, _: int) -> Tensor:
            k = int(torch.multinomial(self.weights, 1, generator=g))
            n = torch.randn(self.eigenvalues.shape[1], generator=g, dtype=torch.float64)
            # The symmetric root is the same on any processor; eigenvectors of equal eigenvalues are not.
            Q = self.eigenvectors[k]
            return self.means[k] + (Q @ (self.eigenvalues[k].sqrt() * (Q.T @ n))).reshape(shape)

        return rng.each(one)

    @property
    def mean(self) -> Tensor:
        """`E[x]`, `shape`."""
        return torch.tensordot(self.weights, self.means, dims=1)

    @property
    def covariance_matrix(self) -> Tensor:
        """`Cov[x]`, `(d, d)`."""
        dev = (self.means - self.mean).flatten(1)  # (K, d)
        return torch.einsum("k,kij->ij", self.weights, self.covariances) + (self.weights[:, None] * dev).T @ dev

    def posterior(self, problem: Problem) -> GaussianMixture:
        """`p(x | y)` of a linear-Gaussian problem with one row of data: a mixture again, in closed form.

        Raises:
            TypeError: the problem is not linear-Gaussian.
            ValueError: `y` has more than one row.
        """
        problem = problem.white
        operator, sigma_y = problem.linear_gaussian
        if len(problem.y) != 1:
            raise ValueError(f"the posterior is that of one measurement, y has {len(problem.y)} rows")
        A, y = dense(operator, operator.ishape), problem.y.double().flatten()  # (m, d), (m,)
        logw, means, covs = [], [], []
        for w, mean, C in zip(self.weights, self.means.flatten(1), self.covariances, strict=True):
            S = A @ C @ A.T + sigma_y**2 * torch.eye(len(y), dtype=torch.float64)
            L = torch.linalg.cholesky(S)
            G = torch.cholesky_solve(A @ C, L).T  # gain C A' S^-1, (d, m)
            r = y - A @ mean
            white = torch.linalg.solve_triangular(L, r[:, None], upper=False)
            logw.append(w.log() - 0.5 * white.square().sum() - L.diagonal().log().sum())
            means.append(mean + G @ r)
            # Joseph form: symmetric and positive whatever the rounding.
            F = torch.eye(len(mean), dtype=torch.float64) - G @ A
            covs.append(F @ C @ F.T + sigma_y**2 * G @ G.T)
        return GaussianMixture(
            torch.stack(logw).softmax(0).clamp(min=1e-300),
            torch.stack(means).reshape(self.means.shape),
            torch.stack([(c + c.T) / 2 for c in covs]),
        )


def side_by_side(a: GaussianMixture, b: GaussianMixture) -> GaussianMixture:
    """Two independent signals of the same spatial size as one, `(C_a + C_b, *spatial)`: what `Product(a, b)` is."""
    means = [torch.cat([m, n]) for m in a.means for n in b.means]
    covariances = [torch.block_diag(C, S) for C in a.covariances for S in b.covariances]
    return GaussianMixture(torch.outer(a.weights, b.weights).flatten(), torch.stack(means), torch.stack(covariances))


class Gaussian(GaussianMixture):
    """`p(x) = N(x; mean, covariance)`.

    Args:
        mean: `shape`.
        covariance: `(d, d)`, symmetric positive semi-definite.
    """

    def __init__(self, mean: Tensor, covariance: Tensor):
        super().__init__(torch.ones(1), mean[None], covariance)
