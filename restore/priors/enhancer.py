"""A denoiser of speech that was learnt with the noisy recording beside it: `D(x_t, sigma; y) = E[x0 | x_t, y]`.

Richter, Welker, Lemercier, Lay, Gerkmann, *Speech Enhancement and Dereverberation with Diffusion-Based Generative
Models* (SGMSE+), IEEE/ACM TASLP 2023. Its diffusion drifts from the clean towards the noisy speech,

    dx = theta (y - x) dt + g(t) dw,    x_t = e^(-theta t) x0 + (1 - e^(-theta t)) y + sigma_t n.

Given `y`, `(x_t - (1 - e^(-theta t)) y) e^(theta t) = x0 + e^(theta t) sigma_t n`: it is the diffusion of all other
priors here, at the level `e^(theta t) sigma_t`, in coordinates that move with `y`, and its score is that of this one
times `e^(theta t)`. So what is learnt is a denoiser like another, of `p(x0 | y)` in place of `p(x0)`. The paper starts
at `x_T = y + sigma_T n`, which is `y + e^(theta T) sigma_T n` here. That matters: the loudest speech shows through
noise of the highest level, and a network takes a start without for silence. So what is drawn is the noise in `y`, of
which nothing is known at the start: `y - D(y - n_t, sigma; y)` is a prior on it that every sampler draws from, in a
problem in which nothing was measured.

Departures: levels and ladders are those of the other priors, so the drift `theta` and the schedule are gone; frames are
as they are, with the preconditioning of `SpeechDenoiser`, and only the `y` that the network sees is compressed by the
square root of its magnitude, as the paper does with all; the network is smaller.
"""

from __future__ import annotations

from torch import Tensor

from .base import Denoiser
from .speech import SpeechDenoiser

BESIDE = 3  # channels: the frequency, and real and imaginary part of `y`


class Enhancer(SpeechDenoiser):
    """`D(x, sigma; y)` for audio or its frames; `noise_in(y)` is a prior like another. Takes what `SpeechDenoiser`
    does, and a network with `BESIDE` channels beside."""

    def noise_in(self, y: Tensor) -> NoiseHeard:
        """The denoiser of the noise in the frames `y` of noisy speech, `(1 or B, 2, 256, N)`, in units of the prior."""
        return NoiseHeard(self, y)

    def forward(self, x: Tensor, sigma: Tensor | float, beside: Tensor | None = None) -> Tensor:
        if beside is None:
            raise ValueError(
                "this network was learnt with noisy speech beside it and is no prior without: use noise_in(y)"
            )
        weighed = beside / self.spread.to(beside)[:, None]
        magnitude = weighed.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
        return super().forward(x, sigma, weighed / magnitude.sqrt())


class NoiseHeard(Denoiser):
    """What an `Enhancer` that has heard the noisy speech `y` knows of the noise in it: its posterior is the prior."""

    def __init__(self, enhancer: Enhancer, y: Tensor):
        super().__init__()
        self.enhancer, self.y = enhancer, y
        self.shape, self.signal_std = enhancer.shape, enhancer.signal_std
        self.sigma_min, self.sigma_max = enhancer.sigma_min, enhancer.sigma_max

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Frames like those of the noisy speech."""
        return shape == tuple(self.y.shape[1:])

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`(B, 2, 256, N)`. Raises ValueError where these are not frames like those of the noisy speech."""
        if not self.accepts(tuple(x.shape[1:])):
            raise ValueError(f"this is a prior on the noise in {tuple(self.y.shape)}, got {tuple(x.shape)}")
        y = self.y.expand(len(x) if len(self.y) == 1 else -1, *self.y.shape[1:])
        return y - self.enhancer(y - x, sigma, y)
