"""Classical restoration of speech at 16 kHz, `(T,) -> (T,)` float64, with nothing known that a user would not know."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.signal import istft, lfilter, stft
from scipy.special import exp1

RATE = 16_000
FRAME, HOP = 512, 128
LEAST = 10**-2.5  # the smallest signal-to-noise ratio a priori
ORDER, CONTEXT = 320, 1600  # of linear prediction: 20 ms of past, fitted to 100 ms on either side


def _frames(y: np.ndarray) -> np.ndarray:
    return stft(y, RATE, nperseg=FRAME, noverlap=FRAME - HOP)[2]


def _audio(Y: np.ndarray, length: int) -> np.ndarray:
    return istft(Y, RATE, nperseg=FRAME, noverlap=FRAME - HOP)[1][:length]


def tracked_noise(power: np.ndarray) -> np.ndarray:
    """Power of the noise in frames `(F, N)`: Gerkmann and Hendriks, "Unbiased MMSE-Based Noise Power Estimation With
    Low Complexity and Low Tracking Delay", IEEE TASLP 2012, with their constants; it begins with the quietest tenth."""
    ratio = 10**1.5
    noise = np.quantile(power, 0.1, axis=1) / -np.log1p(-0.1)
    smooth, out = np.full(len(power), 0.5), np.empty_like(power)
    for n, P in enumerate(power.T):
        with np.errstate(over="ignore"):
            present = 1 / (1 + (1 + ratio) * np.exp(-P / np.maximum(noise, 1e-30) * ratio / (1 + ratio)))
        smooth = 0.9 * smooth + 0.1 * present
        present = np.where(smooth > 0.99, np.minimum(present, 0.99), present)
        noise = 0.8 * noise + 0.2 * (present * noise + (1 - present) * P)
        out[:, n] = noise
    return out


def suppressed(y: np.ndarray, log_mmse: bool) -> np.ndarray:
    """The decision-directed Wiener filter, or the estimator of log amplitudes (Ephraim and Malah, IEEE TASSP 1984 and
    1985), with tracked noise."""
    Y = _frames(y)
    power = np.abs(Y) ** 2
    noise = np.maximum(tracked_noise(power), 1e-30)
    gains, before = np.empty_like(power), np.zeros(len(power))
    for n, gamma in enumerate((power / noise).T):
        gamma = np.minimum(gamma, 1e4)
        xi = np.maximum(0.98 * before + 0.02 * np.maximum(gamma - 1, 0), LEAST)
        gains[:, n] = xi / (1 + xi)
        if log_mmse:
            gains[:, n] *= np.exp(exp1(np.maximum(gamma * xi / (1 + xi), 1e-8)) / 2)
        before = gains[:, n] ** 2 * gamma
    return _audio(Y * gains, len(y))


def gated(y: np.ndarray) -> np.ndarray:
    """Spectral gating by the package `noisereduce`, its noise not stationary, else as it is by itself."""
    from noisereduce import reduce_noise

    return reduce_noise(y=y, sr=RATE).astype(np.float64)


def predicted(y: np.ndarray, gaps: list[tuple[int, int]]) -> np.ndarray:
    """Gaps filled by linear prediction from the left and from the right, faded into each other (Kauppinen and Roth
    2002; coefficients by the autocorrelation method)."""
    x = y.copy()
    for a, b in gaps:
        left, right = x[max(a - CONTEXT, 0) : a], x[b : b + CONTEXT][::-1]
        forward, backward = _continued(left, b - a), _continued(right, b - a)[::-1]
        fade = np.cos(np.pi / 2 * (np.arange(b - a) + 0.5) / (b - a)) ** 2
        x[a:b] = fade * forward + (1 - fade) * backward
    return x


def _continued(past: np.ndarray, count: int) -> np.ndarray:
    order = min(ORDER, len(past) // 2)
    if order < 1 or not past.any():
        return np.zeros(count)
    r = np.correlate(past, past, "full")[len(past) - 1 : len(past) + order] / len(past)
    r[0] *= 1 + 1e-6
    a = solve_toeplitz(r[:-1], r[1:])
    state = past[::-1][:order]
    zi = np.array([a[i:] @ state[: order - i] for i in range(order)])
    return lfilter([1.0], np.r_[1.0, -a], np.zeros(count), zi=zi)[0]


def declipped(y: np.ndarray, level: float, rounds: int = 100) -> np.ndarray:
    """A-SPADE: in every frame the sparsest spectrum that agrees with what was measured, clipped samples lying beyond
    the level (Kitic, Bertin, Gribonval, LVA/ICA 2015: one more pair of coefficients each round, stopping at 0.1)."""
    n, hop = 1024, 256
    window = np.hanning(n + 1)[:-1]
    padded = np.pad(y, (n, 2 * n))
    out, weight = np.zeros_like(padded), np.zeros_like(padded)
    for start in range(0, len(padded) - n + 1, hop):
        frame = padded[start : start + n]
        high, low = frame >= level, frame <= -level
        x = _sparse(frame, high, low, rounds) if (high | low).any() else frame
        out[start : start + n] += window * x
        weight[start : start + n] += window
    return (out / np.maximum(weight, 1e-9))[n : n + len(y)]


def _sparse(frame: np.ndarray, high: np.ndarray, low: np.ndarray, rounds: int) -> np.ndarray:
    def consistent(x: np.ndarray) -> np.ndarray:
        x = np.where(high, np.maximum(x, frame), np.where(low, np.minimum(x, frame), frame))
        return x

    def analysis(x: np.ndarray) -> np.ndarray:
        return np.fft.rfft(x, 2 * len(frame)) / np.sqrt(2 * len(frame))

    def synthesis(z: np.ndarray) -> np.ndarray:
        return np.fft.irfft(z)[: len(frame)] * np.sqrt(2 * len(frame))

    x, u = frame, np.zeros(len(frame) + 1, complex)
    for k in range(1, rounds + 1):
        z = analysis(x) + u
        z[np.argsort(np.abs(z))[:-k]] = 0
        # The frame is tight: the nearest consistent frame to the spectrum is that to its synthesis.
        x = consistent(synthesis(z - u))
        apart = analysis(x) - z
        if np.linalg.norm(apart) <= 0.1 * max(np.linalg.norm(z), 1e-12):
            break
        u = u + apart
    return x


def inverted(y: np.ndarray, response: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The regularised inverse filter, its weight chosen by the truth."""
    from restore.audio_metrics import si_sdr

    n = len(y) + len(response)
    H, Y = np.fft.rfft(response, n), np.fft.rfft(y, n)
    each = [
        np.fft.irfft(H.conj() * Y / (np.abs(H) ** 2 + w), n)[: len(y)] for w in (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4)
    ]
    return max(each, key=lambda x: si_sdr(x, truth))
