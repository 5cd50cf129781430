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
    shrink, ahead = tau / sigma, m
    if rule in ("multistep", "sde") and state.m is not None and state.sigma is not None:
        ratio = math.log(sigma / tau) / math.log(state.sigma / sigma)
        ahead = m + ratio / 2 * (m - state.m)
    if rule in ("ancestral", "sde"):
        return State(ahead + shrink**2 * (x - ahead) + tau * math.sqrt(1 - shrink**2) * noise(), m, sigma)
    end = ahead + shrink * (x - ahead)
    if rule == "heun":
        end = x + (tau - sigma) * ((x - m) / sigma + (end - mean(end, tau)) / tau) / 2
    return State(end, m, sigma)


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
