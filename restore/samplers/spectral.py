"""The step that DDRM and DDNM+ take in the singular basis of `A`."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.linalg import SVD


def replace_measured(svd: SVD, y: Tensor, D: Tensor, n: Tensor, noise: Tensor, gain: Tensor, fresh: Tensor) -> Tensor:
    """`D + noise` with its measured directions replaced by `V'D + gain (U'y - s V'D) + fresh V'n`, `(B, *ishape)`.

    `gain`, `fresh`: one number for each singular value. Values below 1e-6 of the largest count as zero.
    """
    s = svd.s.to(D)
    Dbar, nbar, noisebar = svd.Vt(torch.cat([D, n, noise])).chunk(3)
    change = gain.to(D) * (svd.Ut(y) - s * Dbar) + fresh.to(D) * nbar - noisebar
    return D + noise + svd.V(torch.where(s > 1e-6 * s.max(), change, 0.0))
