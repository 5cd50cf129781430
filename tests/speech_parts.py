"""Small recordings, and priors for tests of everything around them."""

import numpy as np
import soundfile as sf
import torch
from standin import Local

from restore.priors.base import per_row
from restore.priors.enhancer import BESIDE, Enhancer
from restore.priors.network import UNet


def voice(seconds=1.0, rate=16000, level=0.2, seed=0):
    """Tones that come and go as syllables do, `(T,)`."""
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    tones = sum(np.sin(2 * np.pi * 150 * k * t + rng.uniform(0, 6)) / k for k in range(1, 9))
    return level * tones * np.clip(np.sin(2 * np.pi * 2.5 * t), 0, 1) ** 0.5 / 2


def noise(length, sigma=0.03, seed=1):
    return sigma * np.random.default_rng(seed).standard_normal(length)


def recording(path="noisy.wav", seconds=1.0, rate=16000, channels=1, subtype=None, sigma=0.03, x=None, **how):
    """Written and given back as it was read, `(T, C)`."""
    if x is None:
        x = voice(seconds, rate)
        x = x + noise(len(x), sigma)
    x = np.stack([x * 0.8**c for c in range(channels)], 1) if np.ndim(x) == 1 else x
    sf.write(path, x, rate, subtype=subtype, **how)
    return sf.read(path, always_2d=True)[0]


class Speech(Local):
    """Frames of a noise-free signal as strong at each frequency as speech is: Wiener's filter."""

    sigma_min, sigma_max = 0.005, 20.0

    def forward(self, x, sigma):
        f = torch.linspace(0, 8, x.shape[-2], dtype=x.dtype)
        v = (0.8 / (1 + (f / 0.7) ** 2)).square()[:, None] + 1e-6
        return x * v / (v + per_row(sigma, x).square() / 4)


class Echo(Enhancer):
    """Gives back what it heard."""

    def __init__(self, name=None):
        super().__init__(UNet((2,), (4, 4), (1, 1), 8, beside=BESIDE))

    def forward(self, x, sigma, beside=None):
        return beside


class Mute(Echo):
    """Hears no speech."""

    def forward(self, x, sigma, beside=None):
        return 0 * beside


class Clear(Speech):
    """Believes that whatever it is given is speech."""

    def forward(self, x, sigma):
        return x
