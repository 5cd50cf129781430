"""How sure a denoiser is: models of `Cov[x0 | x_t]`, the spread of the clean signal around `D(x_t, sigma)`.

By Tweedie's second-order formula the exact one is `sigma^2 dD/dx` (Efron 2011; Peng et al. 2024). A model is
symmetric and positive semi-definite, row by row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache

import torch
from torch import Tensor

from operators import diagonal
from operators.base import LinearOperator
from operators.compose import compose
from operators.fourier import irfft2, twice
from operators.linalg import cg
from operators.random import Draws, white_data

# Relative residuals in the norm of `_Unknowns`. Measured on pictures: smaller ones gain 0 to 0.2 dB.
ROUGH = (0.5, 0.05)
CELLS = 16  # steps from frequency 0 to 1/2 along each axis, where spectra are averaged over near frequencies


class Covariance(ABC):
    """`C`, one matrix for each row of the batch it was asked for, or one for all."""

    @abstractmethod
    def __call__(self, v: Tensor) -> Tensor:
        """`C v`: `(B, *shape) -> (B, *shape)`."""

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        """`C A' (A C A' + sigma_y^2 I)^-1 r`: what a residual `r` of the data says about the signal.

        `(B, *oshape) -> (B, *ishape)`, with the `B` that the covariance was asked for. Default: conjugate gradients in
        the space of the data.

        Raises:
            ConvergenceError: conjugate gradients did not converge.
        """
        z = cg(lambda v: A.forward(self(A.adjoint(v))) + sigma_y**2 * v, r)
        return self(A.adjoint(z))

    def seen_through(self, A: LinearOperator, r: Tensor) -> Tensor | None:
        """About the diagonal of `A C A'` in the modes of data that are pictures, `(C, H, W // 2 + 1)` in the layout of
        `Stationary`: for preconditioning. `None` where it is not known.

        Args:
            r: data, `(B, C, H, W)`.
        """
        return None

    def sample(self, rng: Draws, like: Tensor) -> Tensor:
        """One draw of `N(0, C)` per row of `rng`, `(B, *shape)` as `like` is.

        Raises:
            NotImplementedError: of this covariance no root is known.
        """
        raise NotImplementedError(f"{type(self).__name__} has no root to draw with")

    def draw(
        self, A: LinearOperator, D: Tensor, y: Tensor, sigma_y: float, rng: Draws, *, spread: float, fresh: float
    ) -> Tensor:
        """`x0` given `y`, where it is `N(D, C)`, `(B, *ishape)`: perturb and solve (Papandreou and Yuille 2010).

        Args:
            spread: of what is drawn of `N(0, C)`; 1 for a draw that is exact.
            fresh: standard deviation of what is added to `y`; `sigma_y` for a draw that is exact.
        """
        z = D.add(self.sample(rng, D), alpha=spread)
        return z + self.gain(A, y.add(white_data(A, rng, z), alpha=fresh) - A.forward(z), sigma_y)


class Scalar(Covariance):
    """`C = variance I`: every number of the signal equally unsure, none linked to another."""

    def __init__(self, variance: float):
        self.variance = variance

    def __call__(self, v: Tensor) -> Tensor:
        return self.variance * v

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        return A.pull(r, sigma_y**2 / self.variance)

    def seen_through(self, A: LinearOperator, r: Tensor) -> Tensor | None:
        if A.gram is None or r.ndim != 4:
            return None
        return r.new_full((*r.shape[1:-1], r.shape[-1] // 2 + 1), self.variance * A.gram)

    def sample(self, rng: Draws, like: Tensor) -> Tensor:
        return math.sqrt(self.variance) * rng.normal(like.shape[1:], like)


class Diagonal(Covariance):
    """`C = diag(variances)`: numbers not linked to another, each unsure by itself.

    Args:
        variances: positive, `(B, *shape)`.
    """

    def __init__(self, variances: Tensor):
        self.variances = variances

    def __call__(self, v: Tensor) -> Tensor:
        return self.variances * v

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        """To one percent or a hundred iterations, whichever comes first: at high sigma the system is badly conditioned,
        and the answer worth less than the model. Where the rows of `A` are orthogonal and of one norm, each number is
        first taken as if it were measured by itself; where `A` is diagonal too, it was."""
        if isinstance(A, diagonal.Diagonal):
            w = A.weights.to(r)
            return w * self.variances / (w**2 * self.variances + sigma_y**2) * r

        def alone(v: Tensor) -> Tensor:
            if A.gram is None:
                return v
            return A.forward(A.adjoint(v) / (A.gram * self.variances + sigma_y**2))

        z = cg(
            lambda v: A.forward(self(A.adjoint(v))) + sigma_y**2 * v,
            r,
            precondition=alone,
            tol=1e-2,
            max_iter=100,
            floor=sigma_y**2,
        )
        return self(A.adjoint(z))

    def sample(self, rng: Draws, like: Tensor) -> Tensor:
        return self.variances.sqrt() * rng.normal(like.shape[1:], like)


class Times(Covariance):
    """`factor C`: the same in other units."""

    def __init__(self, C: Covariance, factor: float):
        self.C, self.factor = C, factor

    def __call__(self, v: Tensor) -> Tensor:
        return self.factor * self.C(v)

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        return self.C.gain(A, r, sigma_y / math.sqrt(self.factor))

    def seen_through(self, A: LinearOperator, r: Tensor) -> Tensor | None:
        through = self.C.seen_through(A, r)
        return None if through is None else self.factor * through

    def sample(self, rng: Draws, like: Tensor) -> Tensor:
        return math.sqrt(self.factor) * self.C.sample(rng, like)

    def draw(
        self, A: LinearOperator, D: Tensor, y: Tensor, sigma_y: float, rng: Draws, *, spread: float, fresh: float
    ) -> Tensor:
        root = math.sqrt(self.factor)
        return self.C.draw(A, D, y, sigma_y / root, rng, spread=spread * root, fresh=fresh)


class Through(Covariance):
    """`M C M'`: that of `M u`, for `u` with the covariance `C`."""

    def __init__(self, M: LinearOperator, C: Covariance):
        self.M, self.C = M, C

    def __call__(self, v: Tensor) -> Tensor:
        return self.M.forward(self.C(self.M.adjoint(v)))

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        return self.M.forward(self.C.gain(compose(A, self.M), r, sigma_y))

    def sample(self, rng: Draws, like: Tensor) -> Tensor:
        return self.M.forward(self.C.sample(rng, like.new_empty(len(like), *self.M.ishape)))


class Stationary(Covariance):
    """`C = O' F' diag(spectrum) F O`: independent Fourier modes of opponent colours, the same everywhere.

    Args:
        spectrum: variance of each mode, positive, `(C, H, W // 2 + 1)` in the layout of `torch.fft.rfft2`.
        rough: gains are solved for as closely as an average over pictures deserves: to a relative residual of `ROUGH`
            (operators whose rows are orthogonal and of one norm, others); else as closely as `operators.linalg.cg`
            does by itself.
    """

    def __init__(self, spectrum: Tensor, rough: bool = False):
        self.spectrum, self.rough = spectrum, rough

    def __call__(self, v: Tensor) -> Tensor:
        return filtered(v, self.spectrum)

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        """In closed form where `A` is shift-invariant. Else by conjugate gradients on the modes of
        `(I + C^(1/2) A'A C^(1/2) / sigma_y^2) u = C^(1/2) A' r / sigma_y^2`, for a signal `C^(1/2) u`, preconditioned.
        """
        pulled, inverse = A.adjoint(r), self._inverse(A, r, sigma_y)
        if A.shift_invariant:
            return filtered(pulled, self.spectrum * inverse / sigma_y**2)
        u = _Unknowns(self.spectrum, inverse, A, sigma_y)
        return cg(u.matvec, u.modes(pulled), onto=torch.zeros_like(pulled), tol=self._tol(A))

    def draw(
        self, A: LinearOperator, D: Tensor, y: Tensor, sigma_y: float, rng: Draws, *, spread: float, fresh: float
    ) -> Tensor:
        """As in the base class, with `D` moved once by what is drawn and what is solved for: both are modes. Where `A`
        is shift-invariant these are independent, and one number is drawn of each, with the variance of two.
        """
        w, inverse = rng.normal(D.shape[1:], like=D), self._inverse(A, y, sigma_y)
        if A.shift_invariant:
            pull = self.spectrum * inverse / sigma_y**2
            told = to_modes(A.adjoint(y - A.forward(D))) * pull
            seen = passed(A, y, self.spectrum.shape) * pull.square() * fresh**2
            drawn = to_modes(w) * (seen + self.spectrum * (spread * inverse).square()).sqrt()
            return D + from_modes(told + drawn, A.ishape[-1])
        pulled = A.adjoint(y.add(white_data(A, rng, D), alpha=fresh) - A.forward(D))
        u = _Unknowns(self.spectrum, inverse, A, sigma_y)
        return cg(u.matvec, u.modes(pulled).add_(u.white(w), alpha=spread), onto=D, tol=self._tol(A))

    def _tol(self, A: LinearOperator) -> float | None:
        return ROUGH[A.gram is None] if self.rough else None

    def _inverse(self, A: LinearOperator, like: Tensor, sigma_y: float) -> Tensor:
        """That of `I + C^(1/2) A'A C^(1/2) / sigma_y^2` where modes do not mix, and about that where they do.

        What a projection moves from one mode to others is noise there, with the variance that signals of the covariance
        `C` have; half of it, for the most of it is solved for (measured: the whole serves few data, none many).
        """
        share = passed(A, like, self.spectrum.shape)
        noise: Tensor | float = sigma_y**2
        if A.gram is not None and not A.shift_invariant:
            width = A.ishape[-1]
            variance = (self.spectrum @ twice(width, self.spectrum)).mean(-1) / width  # of each number of a channel
            moved = (A.gram - share).clamp(min=0)  # an estimate of `share` may come out larger
            noise = 0.5 * moved * variance[:, None, None] + noise
        return (share / noise * self.spectrum).add_(1).reciprocal_()

    def seen_through(self, A: LinearOperator, r: Tensor) -> Tensor | None:
        if A.ishape != A.oshape:
            return None
        return self.spectrum * passed(A, r, self.spectrum.shape)

    def sample(self, rng: Draws, like: Tensor) -> Tensor:
        return filtered(rng.normal(like.shape[1:], like), self.spectrum.sqrt())


class _Unknowns:
    """The system of `Stationary.gain`, preconditioned from both sides: its unknowns `v` are the modes of a signal
    `C^(1/2) P^(1/2) v`, real numbers `(B, C, H, W // 2 + 1, 2)` whose inner product is that of the signals they stand
    for, and its matrix is `P^(1/2) (I + C^(1/2) A'A C^(1/2) / sigma_y^2) P^(1/2)`.

    Args:
        spectrum: of `C`.
        inverse: `P`.
    """

    def __init__(self, spectrum: Tensor, inverse: Tensor, A: LinearOperator, sigma_y: float):
        self.A, self.inverse, self.width = A, inverse, A.ishape[-1]
        each, root = twice(self.width, spectrum).sqrt(), (spectrum * inverse).sqrt()
        self.into, self.out = root / each, root * (each / sigma_y**2)
        self.own = inverse.sqrt() * each

    def matvec(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix times `v`, and the signal of `v`."""
        signal = from_modes(self.into * torch.view_as_complex(v), self.width)
        own = torch.view_as_real(self.inverse * torch.view_as_complex(v))
        return own.add_(self.modes(self.A.normal(signal))), signal

    def modes(self, pulled: Tensor) -> Tensor:
        """`P^(1/2) C^(1/2)' / sigma_y^2` of a signal."""
        return torch.view_as_real(self.out * to_modes(pulled))

    def white(self, w: Tensor) -> Tensor:
        """`P^(1/2)` of white noise."""
        return torch.view_as_real(self.own * to_modes(w))


def to_modes(v: Tensor) -> Tensor:
    """`F O v`, `(B, C, H, W) -> (B, C, H, W // 2 + 1)`, complex."""
    return torch.fft.rfft2((opponent(v) @ v.flatten(2)).view_as(v), norm="ortho")


def from_modes(modes: Tensor, width: int) -> Tensor:
    """The inverse, `O' F'`: `(B, C, H, W // 2 + 1) -> (B, C, H, W)`."""
    v = irfft2(modes, width, norm="ortho")
    return (opponent(v).T @ v.flatten(2)).view_as(v)


def filtered(v: Tensor, spectrum: Tensor) -> Tensor:
    """`O' F' diag(spectrum) F O v`, `(B, C, H, W) -> (B, C, H, W)`."""
    return from_modes(spectrum * to_modes(v), v.shape[-1])


def passed(A: LinearOperator, like: Tensor, shape: torch.Size) -> Tensor:
    """How much `A'A` passes of each mode of `Stationary`, `(C, H, W // 2 + 1)` or a shape that broadcasts to it."""
    response = A.response()
    return mean_response(A, like, shape) if response is None else response.to(like)


def mean_response(A: LinearOperator, like: Tensor, shape: torch.Size) -> Tensor:
    """The part of `A'A` that is diagonal in the modes of `Stationary`, averaged over near frequencies: `shape`."""
    probe = torch.randn(1, *A.ishape, generator=torch.Generator().manual_seed(0)).to(like)
    into, out = (to_modes(v)[0] for v in (probe, A.normal(probe)))
    cells = frequency_cells(*A.ishape[-2:])
    power = averaged(into.abs().square(), cells)
    return (averaged((into.conj() * out).real, cells) / power).clamp(min=0)[:, cells].reshape(shape)


def frequency_cells(height: int, width: int) -> Tensor:
    """The cell, of `(CELLS + 1)^2`, of each mode of `rfft2`, quadrants taken as one: `(H (W // 2 + 1),)`."""
    rows, columns = (
        (f.abs() * 2 * CELLS).round().long() for f in (torch.fft.fftfreq(height), torch.fft.rfftfreq(width))
    )
    return (rows[:, None] * (CELLS + 1) + columns).flatten()


def averaged(values: Tensor, cells: Tensor) -> Tensor:
    """Mean of `(C, H, W / 2 + 1)` over the modes of each cell, `(C, cells)`; 0 where a cell has none."""
    cells = cells.to(values.device)
    size = int(cells.max()) + 1
    total = values.new_zeros(values.shape[0], size).index_add(1, cells, values.flatten(1))
    return total / torch.bincount(cells, minlength=size).clamp(min=1).to(values)


def opponent(v: Tensor) -> Tensor:
    """Orthonormal axes of the channels of `v`: light, and for three channels red-green and yellow-blue, `(C, C)`."""
    return _axes(v.shape[1], v.dtype, v.device)


@cache
def _axes(channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if channels != 3:
        return torch.eye(channels, dtype=dtype, device=device)
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]], dtype=dtype, device=device)
    return axes / axes.norm(dim=1, keepdim=True)


class Mixture(Covariance):
    """Covariance of a Gaussian mixture, `sum_k w_k (C_k + d_k d_k')`, for each row.

    Args:
        weights: `(K, B)`, summing to one over `k`.
        deviations: `d_k`, means of the components minus the overall mean, `(K, B, n)`.
        eigenvectors, eigenvalues: of `C_k`, `(K, n, n)` and `(K, 1|B, n)`.
    """

    def __init__(self, weights: Tensor, deviations: Tensor, eigenvectors: Tensor, eigenvalues: Tensor):
        self.weights, self.deviations, self.Q, self.eigenvalues = weights, deviations, eigenvectors, eigenvalues

    def __call__(self, v: Tensor) -> Tensor:
        flat = v.flatten(1)
        within = ((flat[None] @ self.Q) * self.eigenvalues) @ self.Q.mT  # (K, B, n)
        between = self.deviations * (self.deviations * flat).sum(-1, keepdim=True)
        return torch.einsum("kb,kbn->bn", self.weights, within + between).reshape(v.shape)

    def sample(self, rng: Draws, like: Tensor) -> Tensor:
        """A draw of each component in proportion to the root of its weight: the covariance, not the shape, is right."""
        K, n = self.deviations.shape[0], self.deviations.shape[-1]
        along, apart = rng.normal((K, n), like), rng.normal((K,), like)  # (B, K, n), (B, K)
        # Through the symmetric root, which is the same on any processor: eigenvectors of equal eigenvalues are not.
        within = ((along.transpose(0, 1) @ self.Q) * self.eigenvalues.sqrt()) @ self.Q.mT  # (K, B, n)
        each = within + self.deviations * apart.T[..., None]
        return torch.einsum("kb,kbn->bn", self.weights.sqrt(), each).reshape(like.shape)
