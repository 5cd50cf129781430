"""A learnt denoiser of speech: audio goes in and comes out, a network sees its frames of frequencies.

With the transform `S` of `operators.stft`, `S'S = I`, all that frames `x_t = S a + sigma n` tell of the audio `a` is in
`S' x_t = a + sigma n'`, `n'` white: the noise outside of the range of `S` is independent of both. So the posterior mean
is one of audio, and `D(x_t) = S D(S' x_t)` loses nothing: three quarters of the noise of frames are gone before the
network sees them. Audio and frames are two faces of one prior, with one meaning of sigma.

In the frames the preconditioning of Karras et al. (arXiv:2206.00364, eq. 7; Table 1) has a `sigma_data` for each
frequency, for speech is forty times stronger at some than at others, and the noise of each number there, `sigma / 2` of
windows of four hops. The network is told each frequency besides: unlike pictures, speech is not the same shifted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from operators.stft import STFT

from .base import Denoiser, per_row
from .covariance import Covariance, Diagonal, Through
from .network import EDMDenoiser, UNet, has_fast_bf16
from .spectra import log_between

WINDOW, HOP = 510, 128  # samples; 256 frequencies
BINS = WINDOW // 2 + 1
RATE = 16_000  # Hz
BANDS, CLASSES, STEP = 32, 12, 3.0  # of the table of errors: frequencies; strengths of the signal, in steps of dB
FEWEST = 200  # numbers that an entry of it is a mean of


def longest(frames: int) -> int:
    """Samples of the longest audio with so many frames."""
    return frames * HOP - (WINDOW - HOP)


class SpeechDenoiser(EDMDenoiser):
    """`D` for audio `(B, 1, T)` at 16 kHz or its frames `(B, 2, 256, N)`, where the rms of a recording is 1.

    Args:
        network: `F`, for two channels and the frequency beside them.
        spread: `sigma_data` per number, for each frequency, `(256,)`; in the units of frames.
        sigma_min, sigma_max: the noise levels it is trained for.
    """

    def __init__(
        self, network: UNet, spread: Tensor | None = None, *, sigma_min: float = 0.005, sigma_max: float = 20.0
    ):
        super().__init__(network, sigma_data=1.0, sigma_min=sigma_min, sigma_max=sigma_max)
        self.shape = (2, BINS, None)
        self.register_buffer("spread", torch.full((BINS,), 0.5) if spread is None else spread.float())
        self.spread: Tensor
        self.errors: ErrorTable | None = None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Audio of one channel and any length; frames of audio."""
        if len(shape) == 2:
            return shape[0] == 1 and shape[1] >= 1
        return len(shape) == 3 and shape[:2] == (2, BINS) and longest(shape[2]) >= 1

    def forward(self, x: Tensor, sigma: Tensor | float, beside: Tensor | None = None) -> Tensor:
        """`(B, 1, T)` or `(B, 2, 256, N)`, `sigma` one number or `(B,)`; `beside`: what the network sees besides, `(B,
        C, 256, N)`. Raises ValueError where the shape does not fit."""
        if not self.accepts(tuple(x.shape[1:])):
            wanted = f"audio (B, 1, T) or its frames (B, 2, {BINS}, N), N at least 3"
            raise ValueError(f"this prior takes {wanted}, got {tuple(x.shape)}")
        S = frames_of(x)
        if x.ndim == 3:
            return S.adjoint(self.in_frames(S.forward(x), sigma, beside))
        return S.forward(S.adjoint(self.in_frames(S.forward(S.adjoint(x)), sigma, beside)))

    def in_frames(self, x: Tensor, sigma: Tensor | float, beside: Tensor | None = None) -> Tensor:
        """What the network makes of frames that are those of noisy audio; in general not those of any audio."""
        e, spread = noise_in_frames(per_row(sigma, x)), self.spread.to(x)[:, None]
        norm = (e**2 + spread**2).sqrt()
        own = next(self.network.parameters()).dtype
        place = torch.linspace(-1, 1, BINS, dtype=own, device=x.device)[:, None].expand(len(x), 1, -1, x.shape[-1])
        others = [] if beside is None else [beside.to(own)]
        inputs = torch.cat([(x / norm).to(own), place, *others], 1).contiguous(memory_format=torch.channels_last)
        c_noise = (per_row(sigma, x).clamp(min=self.sigma_min).log() / 4).reshape(-1).to(own).expand(len(x))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=has_fast_bf16(x.device) and own == torch.float32):
            f = self.network(inputs, c_noise)
        return (spread / norm) ** 2 * x + e * spread / norm * f.to(x.dtype)  # c_skip, c_out

    def covariance(self, x: Tensor, sigma: float) -> Covariance:
        """Of frames as independent numbers, from the table of what this denoiser gets wrong; else the default."""
        if self.errors is None:
            return Denoiser.covariance(self, x, sigma)
        S = frames_of(x)
        C = Diagonal(self.errors.variances(S.forward(S.adjoint(x) if x.ndim == 4 else x), sigma))
        return Through(S.H, C) if x.ndim == 3 else C


def frames_of(x: Tensor) -> STFT:
    """The transform of audio shaped as `x`, or of the longest audio that has the frames `x`."""
    return STFT(x.shape[-1] if x.ndim == 3 else longest(x.shape[-1]), WINDOW, HOP).to(x.device)


def noise_in_frames(sigma: Tensor) -> Tensor:
    """The std of each number in the frames of audio with white noise of std `sigma`."""
    return sigma * math.sqrt(HOP / (2 * BINS))


class ErrorTable:
    """What a denoiser of speech gets wrong: mean squared errors per number of frames, over noise levels, frequencies
    and local strengths of what it was given.

    Where there is speech more is wrong than in silence: the strength is the power of the noisy frames around a number,
    from half that of the noise upwards.

    Args:
        sigmas: `(S,)`, increasing.
        powers: `(S, BANDS, CLASSES)`.
    """

    def __init__(self, sigmas: Tensor, powers: Tensor):
        self.sigmas, self.powers = sigmas.double(), powers.float()

    def variances(self, x: Tensor, sigma: float) -> Tensor:
        """For noisy frames `(B, 2, 256, N)` of audio with noise `sigma`, as many.

        Numbers of those variances, drawn by themselves, make audio with errors as large as those of the table: for the
        few that frames of audio have in common, each is that of the table times the redundancy of frames.
        """
        table = F.interpolate(log_between(self.sigmas, self.powers, sigma).T[None], size=BINS, mode="linear")[0].T
        at = strength(x, sigma).clamp(0, CLASSES - 1).to(x)  # (B, 256, N)
        below = at.long().clamp(max=CLASSES - 2)
        rows = table.to(x)[None].expand(len(x), -1, -1)
        low, high = rows.gather(2, below), rows.gather(2, below + 1)
        return torch.lerp(low, high, at - below).exp()[:, None].expand_as(x) * (2 * BINS / HOP)


def strength(x: Tensor, sigma: float) -> Tensor:
    """The power around each number of noisy frames, over that of the noise, in classes, `(B, 2, F, N) -> (B, F, N)`."""
    power = x.square().mean(1)
    near = F.avg_pool2d(power[:, None], (3, 5), stride=1, padding=(1, 2), count_include_pad=False)[:, 0]
    excess = near / noise_in_frames(torch.tensor(sigma).to(x)).square()
    return (10 * excess.clamp(min=1e-6).log10() + STEP) / STEP


def measure_errors(
    denoiser: SpeechDenoiser, speech: Sequence[Tensor], sigmas: Sequence[float], *, seed: int = 0
) -> ErrorTable:
    """The table from batches of clean frames, `(B, 2, 256, N)`.

    Entries with too little speech to tell are those of the next weaker class, or stronger where there is none.
    """
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for sigma in sigmas:
        total, count = torch.zeros(2, BANDS * CLASSES, dtype=torch.float64)
        for x in speech:
            S = frames_of(x)
            noisy = S.forward(S.adjoint(x + sigma * torch.randn(x.shape, generator=rng).to(x)))
            with torch.no_grad():
                wrong = (x - denoiser(noisy, sigma)).square().mean(1).double().cpu()
            bands = torch.arange(BINS)[:, None] * BANDS // BINS
            cell = (bands * CLASSES + strength(noisy, sigma).cpu().round().long().clamp(0, CLASSES - 1)).flatten()
            total.index_add_(0, cell, wrong.flatten())
            count.index_add_(0, cell, torch.ones_like(wrong).flatten())
        power, known = ((total / count).view(BANDS, CLASSES), (count >= FEWEST).view(BANDS, CLASSES))
        for classes in (range(1, CLASSES), range(CLASSES - 2, -1, -1)):
            step = 1 if classes.step > 0 else -1
            for c in classes:
                power[:, c] = torch.where(known[:, c], power[:, c], power[:, c - step])
                known[:, c] |= known[:, c - step]
        rows.append(power.float())
    return ErrorTable(torch.tensor(list(sigmas)), torch.stack(rows))
