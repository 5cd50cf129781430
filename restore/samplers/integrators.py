"""Rules that integrate a reverse diffusion, whatever the mean `m(x, sigma)` in it: `E[x0 | x_t]` or `E[x0 | x_t, y]`.

From `sigma` down to `tau`, with `h = ln(sigma / tau)`:

- `euler`, `heun`: the probability flow `dx/dsigma = (x - m) / sigma` (Karras et al. 2022, arXiv:2206.00364, Alg. 1);
- `multistep`: the same flow by DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, Alg. 2), second order, one call;
- `ancestral`: `x' = m + e^-2h (x - m) + tau sqrt(1 - e^-2h) n` (Ho et al. 2020, arXiv:2006.11239, eq. 7);
- `sde`: the same with `m` extrapolated as in `multistep`: SDE-DPM-Solver++(2M) (Lu et al. 2022).

The extrapolation wants steps in `ln sigma` that grow slowly, as on ladders with `rho` of 5 and more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from restore.priors.base import Denoiser
from restore.samplers.base import descent

RULES = ("heun", "euler", "multistep", "ancestral", "sde")


class State(NamedTuple):
    """Where a draw is, and what the step before knew: `m` and the sigma it was asked at."""

    x: Tensor
    m: Tensor | None = None
    sigma: float | None = None


def advance(
    rule: str,
    state: State,
    sigma: float,
    tau: float,
    mean: Callable[[Tensor, float], Tensor],
    noise: Callable[[], Tensor],
) -> State:
    """One step from `sigma` to `tau < sigma`; the last one, to zero, ends at the mean.

    Args:
        mean: `m(x, sigma)`; `heun` asks it twice.
        noise: a standard normal tensor of the shape of `x`; asked by `ancestral` and `sde` only.
    """
    x = state.x
    m = mean(x, sigma)
    if tau == 0:
        return State(m)
    ahead = extrapolated(state, m, sigma, tau) if rule in ("multistep", "sde") else m
    if rule in ("ancestral", "sde"):
        end, spread = kernel(x, ahead, sigma, tau)
        return State(end + spread * noise(), m, sigma)
    end = ahead + tau / sigma * (x - ahead)
    if rule == "heun":
        end = x + (tau - sigma) * ((x - m) / sigma + (end - mean(end, tau)) / tau) / 2
    return State(end, m, sigma)


def extrapolated(state: State, m: Tensor, sigma: float, tau: float) -> Tensor:
    """`m` half a step ahead, by what it was the step before; itself where there was none."""
    if state.m is None or state.sigma is None:
        return m
    ratio = math.log(sigma / tau) / math.log(state.sigma / sigma)
    return state.m.lerp(m, 1 + ratio / 2)


def kernel(x: Tensor, m: Tensor, sigma: float, tau: float) -> tuple[Tensor, float]:
    """Mean and standard deviation of `x'` in an ancestral step from `sigma` to `tau > 0`."""
    shrink = tau / sigma
    return m.lerp(x, shrink**2), tau * math.sqrt(1 - shrink**2)


def run_down(
    rule: str,
    x: Tensor,
    sigma: float,
    steps: int,
    rho: float,
    prior: Denoiser,
    noise: Callable[[], Tensor],
) -> Tensor:
    """From `x` at `sigma` to a clean signal in `steps` steps of the prior alone: `(B, *shape) -> (B, *shape)`."""
    bottom = min(prior.sigma_min, sigma)
    state = State(x)
    at_bottom = bottom > (1 - 1e-6) * sigma  # the last rung of a ladder may miss it by rounding
    for a, b in pairwise(descent(sigma, bottom, 1 if at_bottom else steps, rho).tolist()):
        state = advance(rule, state, a, b, prior, noise)
    return state.x
