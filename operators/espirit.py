"""Coil sensitivities from the middle of k-space, and what the noise of the coils is: all before an operator is made.

k-space here is complex, `(N, H, W)`, its zero frequency in the middle, zero where nothing was sampled.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.base import ShapeError
from operators.masks import centre_block

_HELD = 2**22  # numbers, of the matrices of pixels, to hold at a time


def espirit(
    kspace: Tensor,
    calibration: int = 24,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
) -> Tensor:
    """ESPIRiT: the sensitivities that explain the middle of k-space, one set of maps.

    Local patches of k-space span few dimensions; at each pixel that space says which combinations of coils can occur,
    as a matrix with an eigenvalue 1 whose vector is the sensitivities. They have a root sum of squares of 1, and no
    phase in the combination of coils that sees most.

    Args:
        kspace: complex, `(N, H, W)`; only its middle is used.
        calibration: side of the middle, at most: of each axis as much is taken as was sampled without a gap.
        kernel: side of the patches.
        threshold: singular values of the patches below this share of the largest are noise.
        crop: where the eigenvalue is below this, there is no signal and the maps are zero.

    Returns:
        `(N, H, W)` complex, in the precision of `kspace`.

    Raises:
        ShapeError: not complex `(N, H, W)`.
        ValueError: NaN, or the middle was not sampled, or nothing passes `crop`.

    Source: Uecker et al. 2014, "ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI"; thresholds as in
    SigPy. Departure: there the phase is that of the first coil, which may see little.
    """
    _check(kspace)
    N, H, W = kspace.shape
    block = _middle(kspace, calibration, kernel)
    patches = block.unfold(1, kernel, 1).unfold(2, kernel, 1)  # (N, positions, kernel, kernel)
    patches = patches.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)  # (positions, N kernel^2)
    power, V = torch.linalg.eigh(patches.mH @ patches)
    V = V[:, power > threshold**2 * power[-1]].conj()  # columns: patches are combinations of them
    # The matrix of a pixel is a trigonometric polynomial in its position: the projector V V' summed over the pairs of
    # points of a patch at the same distance. That is far fewer Fourier transforms than one for each kernel.
    projector = (V @ V.mH).view(N, kernel, kernel, N, kernel, kernel)
    lags = projector.new_zeros(2 * kernel - 1, 2 * kernel - 1, N, N)
    for y in range(kernel):
        for x in range(kernel):
            lags[kernel - 1 - y : 2 * kernel - 1 - y, kernel - 1 - x : 2 * kernel - 1 - x] += projector[
                :, :, :, :, y, x
            ].permute(1, 2, 0, 3)
    by_column = torch.einsum("xl,klij->kxij", _waves(W, kernel, lags), lags / kernel**2)
    rows = _waves(H, kernel, lags)
    maps, values = [], []
    for part in rows.split(max(1, _HELD // (W * N * N))):
        value, vector = torch.linalg.eigh((part @ by_column.flatten(1)).view(-1, W, N, N))
        maps.append(vector[..., -1])
        values.append(value[..., -1])
    S, value = torch.cat(maps).permute(2, 0, 1), torch.cat(values)
    if not bool((value > crop).any()):
        raise ValueError(f"no pixel has an eigenvalue above crop={crop} (largest {float(value.max()):.3g}): lower it")
    coils = block.flatten(1)
    strongest = torch.linalg.eigh(coils @ coils.mH)[1][:, -1]
    phase = torch.sgn(torch.tensordot(strongest.conj(), S, 1)).conj()
    return S * torch.where(value > crop, phase, 0)


def noise_samples(kspace: Tensor, share: float = 0.05) -> Tensor:
    """The sampled points farthest from the middle, where a scan holds little but noise: `(N, n)` complex.

    A scan of low resolution and little noise still has signal there, and seems noisier than it is.

    Args:
        kspace: complex, `(N, H, W)`.
        share: of the sampled points.

    Raises:
        ShapeError: not complex `(N, H, W)`.
        ValueError: NaN, or fewer than two points a coil, too few to know the covariance of `N` coils.
    """
    _check(kspace)
    _, H, W = kspace.shape
    y, x = (2 * (torch.arange(n, device=kspace.device) - n // 2) / n for n in (H, W))
    radius = (y[:, None].square() + x.square()).masked_fill(~(kspace != 0).any(0), -1).flatten()
    n = int(share * int((radius >= 0).sum()))
    if n < 2 * len(kspace):
        raise ValueError(f"{n} points at the edge of k-space are too few to tell the noise of {len(kspace)} coils")
    return kspace.flatten(1)[:, radius.topk(n).indices]


def noise_level(noise: Tensor) -> Tensor:
    """The standard deviation per real number of each coil, `(N, n) -> (N,)`: robust against some points of signal.

    Raises:
        ShapeError: not complex `(N, n)`.
    """
    return torch.view_as_real(_noise(noise)).flatten(1).abs().median(1).values / 0.6744897501960817


def prewhiten(kspace: Tensor, noise: Tensor) -> Tensor:
    """Mix the coils so that their noise is independent, of standard deviation 1 per real number.

    Args:
        kspace: complex, `(N, ...)`.
        noise: complex samples without signal, `(N, n)`: a noise scan, or `noise_samples(kspace)`.

    Returns:
        `L^-1 k` for the covariance `L L'` of the noise: what is estimated from it (maps, images) is in its units.

    Raises:
        ShapeError: the noise is not complex `(N, n)` with the coils of `kspace`.
        ValueError: the noise has no independent part for each coil: one is dead, a copy of others, or `n < N`.
    """
    noise = _noise(noise)
    if len(noise) != len(kspace):
        raise ShapeError(f"the noise is that of {len(noise)} coils, but k-space has {len(kspace)}")
    covariance = (noise @ noise.mH).to(torch.complex128) / (2 * noise.shape[1])
    L, info = torch.linalg.cholesky_ex(covariance)
    weakest = L.diagonal().real.square() / covariance.diagonal().real  # what the other coils do not explain of each
    if int(info) or not bool((weakest > 1e-6).all()):
        raise ValueError(
            f"the noise of the {len(noise)} coils is not independent in {noise.shape[1]} samples: leave out coils that "
            "are dead or copies of others, or give more samples"
        )
    return torch.linalg.solve_triangular(L, kspace.flatten(1).to(L), upper=False).to(kspace).view_as(kspace)


def _noise(noise: Tensor) -> Tensor:
    if noise.ndim != 2 or not noise.is_complex() or noise.shape[1] == 0:
        raise ShapeError(f"noise samples are complex, (coils, samples), got {noise.dtype} {tuple(noise.shape)}")
    return noise


def _waves(n: int, kernel: int, like: Tensor) -> Tensor:
    """`exp(2 pi i (p - n // 2) l / n)` for the pixels `p` and the lags `l` of a patch, `(n, 2 kernel - 1)`."""
    p, l = torch.arange(n) - n // 2, torch.arange(1 - kernel, kernel)
    phase = (2 * math.pi / n) * p[:, None] * l
    return torch.polar(torch.ones_like(phase), phase).to(like)


def _middle(kspace: Tensor, calibration: int, kernel: int) -> Tensor:
    """The rectangle around the zero frequency without a gap, of sides up to `calibration`."""
    block = kspace[:, *centre_block((kspace != 0).any(0), calibration)]
    _, h, w = block.shape
    if min(h, w) <= kernel:
        raise ValueError(
            f"the middle of k-space is needed for coil maps, more than {kernel} lines without a gap, but {h} x {w} "
            "points (y by x) were sampled there: give the maps from a file, or check that the zero frequency lies in "
            "the middle"
        )
    return block


def _check(kspace: Tensor) -> None:
    if kspace.ndim != 3 or not kspace.is_complex():
        raise ShapeError(
            f"k-space is complex, of shape (coils, H, W), got {kspace.dtype} of shape {tuple(kspace.shape)}"
        )
    if not bool(torch.isfinite(torch.view_as_real(kspace)).all()):
        raise ValueError("k-space holds NaN or infinite values")
