"""Muon: momentum whose every step turns a layer's matrix by a rotation, as far in each of its directions.

Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, *Muon: An optimizer for hidden layers in neural networks*,
2024. With `M` the running mean of the gradients of a layer's weights, as a matrix `(out, in * k * k)`, and `G` their
Nesterov look-ahead, `W <- W - lr sqrt(max(1, rows / columns)) U V'` where `G = U S V'`; `U V'` by five steps of a
quintic Newton-Schulz iteration, whose singular values end between 0.7 and 1.2.

Departure: the mean is exponential, `M <- (1 - momentum) grad + momentum M`, which changes nothing but the scale of `M`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """For weights of hidden layers, of two dimensions at least.

    Args:
        lr: the largest change of a matrix in a step, as a spectral norm.
        momentum: share of the running mean that a step keeps.
        weight_decay: share of the weights, times `lr`, that a step takes off.
    """

    def __init__(self, params: Iterable[Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step along the gradients. `closure` is not used."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["mean"] = torch.zeros_like(p)
                mean = state["mean"].lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(mean, group["momentum"]).flatten(1)
                rows, columns = ahead.shape
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(rotation(ahead).view(p.shape), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def rotation(G: Tensor) -> Tensor:
    """About `U V'` of `G = U S V'`, `(m, n) -> (m, n)`, in bfloat16."""
    a, b, c = QUINTIC
    X = (G / G.norm().clamp(min=torch.finfo(G.dtype).tiny)).bfloat16()
    if len(X) > X.shape[1]:
        return rotation(G.T).T
    for _ in range(5):
        S = X @ X.T
        X = a * X + (b * S + c * S @ S) @ X
    return X.to(G.dtype)
