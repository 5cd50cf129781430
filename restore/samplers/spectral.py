"""The step that DDRM and DDNM+ take in the singular basis of `A`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from operators.linalg import SVD


def replace_measured(
    svd: SVD, y: Tensor, D: Tensor, n: Tensor, noise: Tensor, weigh: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """`D + noise` with its measured directions replaced by `V'D + gain (U'y - s V'D) + fresh V'n`, `(B, *ishape)`.

    `weigh`: from singular values to `gain` and `fresh`. Values below 1e-6 of the largest count as zero.
    """

    def weights(s: Tensor) -> list[Tensor]:
        gain, fresh = weigh(s)
        measured = s > 1e-6 * s.max()
        return [torch.where(measured, w, 0.0) for w in (gain, -gain * s, fresh, s.new_tensor(-1.0))]

    return D + noise + svd.mix(weights, y, D, n, noise)
