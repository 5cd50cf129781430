"""Noise of unequal strength: Gaussian, independent over the numbers of `y`, with a variance of its own for each.

For speech `y` is the frames of a noisy recording (`operators.stft`), `(1, 2, F, N)`, and a variance belongs to a
frequency in a frame, real and imaginary part alike. (Neighbouring frames overlap and share some noise; as everywhere
in speech enhancement that is left out.) Samplers know only white noise: `Problem.white` divides data and operator by
the standard deviations, which changes nothing of `p(x | y)`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from operators.noise import NoiseModel, _check_rows
from operators.random import Draws

FLOOR = 1e-10  # variances below this share of the mean are taken as that much: silence is not measured that exactly


class Coloured(NoiseModel):
    """`y = z + sqrt(variance) n`."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Of each number, in float64; its shape broadcasts to that of `y`."""

    def sample(self, z: Tensor, rng: Draws) -> Tensor:
        _check_rows(z, rng)
        return z + self.variance.sqrt().to(z) * rng.normal(z.shape[1:], like=z)

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        v = self.variance.to(z)
        return -0.5 * ((y - z).square() / v + (2 * math.pi * v).log()).flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class Stationary(Coloured):
    """A steady noise: one variance for each frequency of the frames.

    Args:
        spectrum: the variances per real number, `(F,)`.

    Raises:
        ValueError: they are not positive and finite.
    """

    spectrum: Tensor

    def __post_init__(self) -> None:
        _check_positive("a spectrum", self.spectrum, 1)

    @property
    def variance(self) -> Tensor:
        return self.spectrum.double()[:, None]

    def fit(self, y: Tensor, z: Tensor) -> Self:
        return replace(self, spectrum=_floored(_power(y, z).mean(-1)))

    @classmethod
    def of(cls, noise: Tensor) -> Self:
        """Of frames that hold nothing but the noise, `(B, 2, F, N)`: their mean power.

        Raises:
            ValueError: they are all zero, or not finite.
        """
        return cls(_floored(_power(noise, torch.zeros_like(noise)).mean(-1)))

    def __repr__(self) -> str:
        return f"Stationary({_told(self.spectrum)})"


@dataclass(frozen=True, eq=False)
class Varying(Coloured):
    """A noise whose variances are known one by one.

    Args:
        variances: per real number, `(F, N)`.

    Raises:
        ValueError: they are not positive and finite.
    """

    variances: Tensor

    def __post_init__(self) -> None:
        _check_positive("variances", self.variances, 2)

    @property
    def variance(self) -> Tensor:
        return self.variances.double()

    def __repr__(self) -> str:
        return f"Varying({_told(self.variances)})"


@dataclass(frozen=True, eq=False)
class NMF(Coloured):
    """A noise made of few sounds that come and go: `variance = W H`.

    Fevotte, Bertin and Durrieu, "Nonnegative matrix factorization with the Itakura-Saito divergence", Neural
    Computation 2009: `W H` that is likeliest for Gaussian noise is the one nearest to its power in that divergence.

    Args:
        W: spectra of the sounds, `(F, K)`.
        H: how loud each is in each frame, `(K, N)`; the variances are per real number.
        updates: of `W` and of `H`, in each `fit`, which starts from where they are.
        redundancy: numbers in the frames for each that is free, `2 F / hop` for frames of audio: the variances are so
            many times the power that is seen. Frames that overlap share their noise, and taken for independent it would
            count so many times: draws would follow it, and EM would lead down to none.

    Raises:
        ValueError: they are not positive and finite, do not fit each other, or `updates` is below one.
    """

    W: Tensor
    H: Tensor
    updates: int = 50
    redundancy: float = 1.0

    def __post_init__(self) -> None:
        for name, M in (("W", self.W), ("H", self.H)):
            _check_positive(name, M, 2)
        if self.W.shape[1] != self.H.shape[0]:
            raise ValueError(f"W {tuple(self.W.shape)} and H {tuple(self.H.shape)} do not agree on how many sounds")
        if self.updates < 1:
            raise ValueError(f"updates must be at least 1, got {self.updates}")
        if not (self.redundancy >= 1 and math.isfinite(self.redundancy)):
            raise ValueError(f"redundancy must be at least 1, got {self.redundancy}")

    @property
    def variance(self) -> Tensor:
        return self.W.double() @ self.H.double()

    def fit(self, y: Tensor, z: Tensor) -> Self:
        V = self.redundancy * _floored(_power(y, z))
        W, H = self.W.to(V), self.H.to(V)
        for _ in range(self.updates):
            W, H = multiplicative_update(V, W, H)
        return replace(self, W=W, H=H)

    @classmethod
    def start(cls, y: Tensor, rank: int, rng: Draws, updates: int = 50, redundancy: float = 1.0) -> Self:
        """Where to begin, for frames `(1, 2, F, N)`: `rank` random spectra around the mean power at each frequency.

        Raises:
            ValueError: the frames are all zero, or not finite.
        """
        P = redundancy * _floored(_power(y, torch.zeros_like(y)).mean(-1))
        uniform = rng.each(lambda g, _: 0.5 + torch.rand(len(P), rank, generator=g, dtype=torch.float64))[0].to(P)
        H = (P.sum() / rank).expand(rank, y.shape[-1]).clone()
        return cls(P[:, None] * uniform / P.sum(), H, updates, redundancy)

    def __repr__(self) -> str:
        return f"NMF({self.W.shape[1]} sounds, {_told(self.variance)})"


def multiplicative_update(V: Tensor, W: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """One round of `W` and `H` nearer to `V`, `(F, N)`, in the Itakura-Saito divergence; columns of `W` add up to one.

        W <- W ((V / (WH)^2) H') / ((WH)^-1 H'),    H <- H (W' (V / (WH)^2)) / (W' (WH)^-1)

    (Fevotte et al. 2009, algorithm 1.)
    """
    WH = W @ H
    W = (W * ((V / WH**2) @ H.T) / ((1 / WH) @ H.T)).clamp(min=1e-300)
    WH = W @ H
    H = (H * (W.T @ (V / WH**2)) / (W.T @ (1 / WH))).clamp(min=1e-300)
    scale = W.sum(0)
    return W / scale, H * scale[:, None]


def itakura_saito(V: Tensor, R: Tensor) -> float:
    """`sum V / R - log(V / R) - 1`: how far variances `R` are from powers `V`, zero where they are the same."""
    ratio = V / R
    return float((ratio - ratio.log() - 1).sum())


def _power(y: Tensor, z: Tensor) -> Tensor:
    """The mean of `(y - z)^2` over draws and over real and imaginary part, `(F, N)` in float64."""
    return (y - z).double().square().mean((0, 1))


def _floored(P: Tensor) -> Tensor:
    mean = float(P.mean())
    if not (mean > 0 and math.isfinite(mean)):
        raise ValueError(f"the power of a noise must be a positive number, got {mean}: there is no noise to fit")
    return P.clamp(min=FLOOR * mean)


def _check_positive(name: str, M: Tensor, ndim: int) -> None:
    if M.ndim != ndim or M.numel() == 0 or not bool((M > 0).all()) or not bool(torch.isfinite(M).all()):
        raise ValueError(
            f"{name} must be {ndim}-dimensional and hold positive numbers, got shape {tuple(M.shape)}"
            + (f" and values from {float(M.min()):.3g} to {float(M.max()):.3g}" if M.numel() else "")
        )


def _told(variance: Tensor) -> str:
    return f"std {float(variance.min()) ** 0.5:.3g} to {float(variance.max()) ** 0.5:.3g}"
