"""Denoisers of other people as priors, and ours as theirs: deepinv, guided-diffusion, diffusers. Nothing is downloaded.

A network that predicts the noise of a variance-preserving diffusion (Ho, Jain and Abbeel 2020, arXiv:2006.11239, eq. 4)
sees `x_vp = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps`. Divided by `sqrt(abar_t)` that is `x0 + sigma eps` with
`sigma^2 = (1 - abar_t) / abar_t`, hence

    D(x, sigma) = x - sigma eps_theta(x / sqrt(1 + sigma^2), t(sigma))

(Karras et al. 2022, arXiv:2206.00364, Table 1, column "VP").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from restore.priors.base import Denoiser, per_row


def from_deepinv(denoiser: nn.Module, channels: int, sigma_min: float, sigma_max: float) -> Denoiser:
    """A deepinv denoiser, `model(x, sigma)`, as a prior for pictures of any size in `[0, 1]`.

    Args:
        denoiser: called with `x` of shape `(B, channels, H, W)` and `sigma` of shape `(B,)`.
        channels: of the pictures it was made for.
        sigma_min, sigma_max: the noise levels it was trained on, in `[0, 1]` units; deepinv does not record them.

    Raises:
        ValueError: `0 < sigma_min < sigma_max` does not hold.
    """
    return _FromDeepinv(denoiser, channels, sigma_min, sigma_max)


class _FromDeepinv(Denoiser):
    def __init__(self, denoiser: nn.Module, channels: int, sigma_min: float, sigma_max: float):
        super().__init__()
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"noise levels must satisfy 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.denoiser, self.shape = denoiser, (channels, None, None)
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        own = x.to(_dtype(self.denoiser, x))
        return self.denoiser(own, per_row(sigma, own).reshape(-1).expand(len(x))).to(x)


def to_deepinv(denoiser: Denoiser) -> nn.Module:
    """A prior as a `deepinv.models.Denoiser`, to be called as `model(x, sigma)` by deepinv's algorithms.

    deepinv means pictures in `[0, 1]` and noise in the same units: wrap a prior learnt on `[-1, 1]` in `Rescaled`.
    A `sigma` outside the range of the prior is passed on unchanged, since deepinv's ladders do not ask.

    Raises:
        ImportError: deepinv is not installed.
    """
    from deepinv.models import Denoiser as DeepinvDenoiser

    class ToDeepinv(DeepinvDenoiser):
        def __init__(self) -> None:
            super().__init__()
            self.prior = denoiser

        def forward(self, x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
            return self.prior(x, per_row(sigma, x).reshape(-1))

    return ToDeepinv()


class NoisePredictor(Denoiser):
    """A network `eps_theta(x_vp, t)` trained on a variance-preserving diffusion, as a prior in the network's own units.

    Serves guided-diffusion models and diffusers' `UNet2DModel`. Both learn on `[-1, 1]`: wrap the result in
    `Rescaled(prior, scale=2, shift=-1)` for pictures in `[0, 1]`. Noise levels between two steps of the schedule get a
    fractional `t`, linear in `ln sigma`; both families embed `t` as a real number.

    Args:
        network: called with `(B, C, *spatial)` and `t` of shape `(B,)`. It returns `eps`, an object that holds it as
            `.sample` (diffusers), or `2 C` channels of which the first `C` are `eps` and the rest a learnt variance
            (guided-diffusion), which is not used.
        shape: of one signal; an entry is `None` where any size is accepted.
        alphas_cumprod: `(T,)`, `abar_t`, decreasing; `None` takes `linear_schedule()`. From diffusers, pass
            `scheduler.alphas_cumprod`, after checking that `scheduler.config.prediction_type` is `"epsilon"`.

    Raises:
        ValueError: `alphas_cumprod` is not a decreasing list of numbers between 0 and 1; the network returns a number
            of channels other than `C` and `2 C`.
    """

    def __init__(self, network: nn.Module, shape: tuple[int | None, ...], alphas_cumprod: Tensor | None = None):
        super().__init__()
        abar = (linear_schedule() if alphas_cumprod is None else alphas_cumprod).double()
        if abar.ndim != 1 or len(abar) < 2 or not bool(((abar > 0) & (abar < 1)).all() and (abar.diff() < 0).all()):
            raise ValueError("alphas_cumprod must be a decreasing list of at least two numbers between 0 and 1")
        self.network, self.shape = network, shape
        self.register_buffer("log_sigmas", 0.5 * (torch.log1p(-abar) - abar.log()))  # (T,), increasing
        self.log_sigmas: Tensor
        self.sigma_min, self.sigma_max = (float(s.exp()) for s in self.log_sigmas[[0, -1]])

    def time(self, sigma: Tensor) -> Tensor:
        """The fractional step `t` at which the noise has std `sigma`: `(B,) -> (B,)`, clipped to `0..T - 1`."""
        table = self.log_sigmas.double()
        log_sigma = sigma.double().log().clamp(table[0], table[-1])
        left = torch.searchsorted(table, log_sigma, right=True).sub(1).clamp(0, len(table) - 2)
        return left + (log_sigma - table[left]) / (table[left + 1] - table[left])

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        s, dtype = per_row(sigma, x), _dtype(self.network, x)
        t = self.time(s.reshape(-1)).expand(len(x))
        eps = self.network((x / (1 + s**2).sqrt()).to(dtype), t.to(dtype))
        eps = getattr(eps, "sample", eps)
        channels = x.shape[1]
        if eps.shape[1] not in (channels, 2 * channels):
            raise ValueError(f"the network returned {eps.shape[1]} channels for {channels}: wanted as many, or twice")
        return x - s * eps[:, :channels].to(x)


def linear_schedule(steps: int = 1000, beta_first: float = 1e-4, beta_last: float = 0.02) -> Tensor:
    """`abar_t = prod(1 - beta)` of the linear schedule of Ho et al. 2020 (section 4), `(steps,)` in float64."""
    return (1 - torch.linspace(beta_first, beta_last, steps, dtype=torch.float64)).cumprod(0)


def _dtype(network: nn.Module, x: Tensor) -> torch.dtype:
    """The dtype a foreign network wants: that of its first floating-point weight, or of `x` where it has none."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), x.dtype)
