"""What the noise of a scan is, and from what that is known."""

from __future__ import annotations

import numpy as np
import torch

from operators.espirit import noise_samples, prewhiten
from restore.errors import InputError
from restore.modalities.mri import Scan

# From this share of the largest frequency on, k-space off the grid is mostly noise.
EDGE = 0.9
# A noise scan so many times weaker than the edges of k-space is not of these data.
OTHER_SCALE = 10.0


def noise_of(scan: Scan, mask: np.ndarray | None, chosen: range, told: float | None) -> tuple[np.ndarray, float, str]:
    """The matrix that makes the noise of all coils equal and independent, its std then, and where both are from.

    Args:
        mask: `(y, x)` bool, where it was given.
        chosen: the slices to look at.
        told: the std per real number, where a person gave it.

    Raises:
        InputError: too few points to tell, or coils whose noise is not independent.
    """
    if told is not None:
        return np.eye(scan.coils, dtype=np.complex64), told, "given"
    middle, least = chosen[len(chosen) // 2], 4 * scan.coils
    parts = [_edges(scan, mask, i) for i in sorted({chosen[0], middle, chosen[-1]})]
    edges = min((p for p in parts if p.shape[1] >= least), key=_power, default=None)
    words, n = "estimated at the edges of k-space", edges
    if scan.noise is not None and scan.noise.shape[1] >= least:
        own = scan.noise - scan.noise.mean(1, keepdims=True)
        if edges is None or _power(edges) < OTHER_SCALE**2 * _power(own):
            words, n = "by the noise scan in the file", own
        else:
            words += " (the noise scan in the file is not on the scale of its data)"
    if n is None:
        seen = "too few points at the edges of k-space to tell the noise by"
        raise InputError(scan.path, seen, "a noise level", "give it with --noise, per real number of the file")
    try:
        whitening = prewhiten(torch.eye(scan.coils, dtype=torch.complex64), torch.from_numpy(np.ascontiguousarray(n)))
    except ValueError as error:
        dead = ", ".join(map(str, np.flatnonzero(~n.any(1))))
        seen = f"nothing from coil {dead} (counted from 0)" if dead else "coils that are copies or mixtures of others"
        cure = "leave those out of the file, or give the noise level with --noise"
        raise InputError(scan.path, seen, "noise that is independent in each coil", cure) from error
    sigma = (_power(n) / 2) ** 0.5
    return sigma * whitening.numpy(), sigma, words + (", all coils whitened to it" if scan.coils > 1 else "")


def _power(n: np.ndarray) -> float:
    return float(np.square(np.abs(n)).mean())


def _edges(scan: Scan, mask: np.ndarray | None, i: int) -> np.ndarray:
    """What was sampled farthest from zero frequency, `(coil, points)`: mostly noise; nothing of too few points."""
    k = scan.kspace(i)
    if scan.trajectory is not None:
        return k[:, np.abs(scan.trajectory).max(1) > EDGE / 2]
    try:
        return noise_samples(torch.from_numpy(k if mask is None else k * mask)).numpy()
    except ValueError:
        return k[:, 0, :0]
