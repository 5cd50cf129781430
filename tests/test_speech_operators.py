"""What the speech operators and noises mean, not only that they are consistent (for that see `test_operators.py`)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from operators.base import ShapeError
from operators.check import LawError, assert_adjoint, assert_solve, assert_svd
from operators.coloured import NMF, Stationary, Varying, itakura_saito, multiplicative_update
from operators.diagonal import Diagonal
from operators.random import Draws, generator
from operators.speech import Gap, Lowpass, Resample, Reverb
from operators.stft import ISTFT, STFT, Compress

RATE = 16000


def audio(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 1, length, generator=generator(seed), dtype=torch.float64)


def tone(hertz: float, length: int) -> torch.Tensor:
    return torch.cos(2 * math.pi * hertz / RATE * torch.arange(length, dtype=torch.float64))[None, None]


@pytest.mark.parametrize(("window", "hop"), [(512, 128), (510, 128), (96, 48), (torch.ones(40), 40)])
def test_the_stft_keeps_energy_and_every_sample(window, hop):
    S = STFT(1001, window, hop)
    x = audio(1001)
    torch.testing.assert_close(S(x).square().sum(), x.square().sum())
    torch.testing.assert_close(S.H(S(x)), x)
    first, last = torch.zeros_like(x), torch.zeros_like(x)
    first[..., 0], last[..., -1] = 1, 1
    assert float(S(first)[..., 0].square().sum()) > 0 and float(S(last)[..., -1].square().sum()) > 0  # no idle frames


def test_the_stft_is_that_of_scipy():
    """Up to the scale, and inside, where both have whole frames; a periodic Hann at a quarter is tight as it is."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    n, hop = 64, 16
    x = audio(640)
    theirs = ShortTimeFFT(hann(n, sym=False), hop, RATE, phase_shift=None).stft(x[0, 0].numpy())
    ours = STFT(640, n, hop)(x)[0]
    ours = torch.complex(ours[0], ours[1]).numpy()
    weight = np.full((n // 2 + 1, 1), math.sqrt(2 / n / 1.5))  # squares of four Hann windows add up to 1.5
    weight[[0, -1]] /= math.sqrt(2)
    start = next(k for k in range(8) if np.allclose(weight * theirs[:, k : k + 30], ours[:, 3:33], atol=1e-9))
    assert start >= 0


def test_a_tone_is_in_its_frequency_and_noise_has_its_sigma():
    S = STFT(4000, 160, 40)
    X = S(tone(2000, 4000)).square().sum(1)[0]  # (F, N)
    assert int(X.sum(1).argmax()) == 20  # bins of 100 Hz
    noise = 0.1 * audio(40000, seed=1)
    X = STFT(40000, 160, 40)(noise)[..., 10:-10]
    inside = X[:, :, 1:-1].square().mean((0, 1, 3))
    wanted = 0.01 * 40 / 160  # the share of each number in a frame that is four times as many
    torch.testing.assert_close(inside, torch.full_like(inside, wanted), rtol=0.2, atol=0)


def test_a_faulty_frame_is_caught():
    S = STFT(23, 8, 2)
    S.window *= 1.01
    with pytest.raises(LawError):
        assert_solve(S)
    with pytest.raises(LawError):
        assert_svd(S)
    A = ISTFT(23, 8, 2)
    A.back *= 1.01
    with pytest.raises(LawError):
        assert_adjoint(A)


def test_compression_and_its_inverse():
    C = Compress((2, 3, 4), exponent=0.5, scale=0.15)
    x = torch.randn(2, 2, 3, 4, generator=generator(0), dtype=torch.float64)
    x[0, :, 0, 0] = 0
    X, Y = (torch.complex(*v.unbind(1)) for v in (x, C(x)))
    torch.testing.assert_close(Y.abs(), 0.15 * X.abs().sqrt())
    torch.testing.assert_close(Y.angle(), X.angle())
    torch.testing.assert_close(C.inverse(C(x)), x)
    torch.testing.assert_close(C(C.inverse(x)), x)
    assert C.inverse.inverse.exponent == pytest.approx(0.5) and C.inverse.inverse.scale == pytest.approx(0.15)
    zero = torch.zeros(1, 2, 3, 4, requires_grad=True)
    for A in (C, C.inverse):
        (grad,) = torch.autograd.grad(A(zero).sum(), zero)
        assert torch.isfinite(grad).all()


def test_compression_is_by_default_that_of_sgmse():
    """Richter et al. 2023: `torch.stft` with n_fft 510, hop 128, periodic Hann, then `0.15 |c|^0.5 e^(i phase)`."""
    x = 0.1 * audio(4000)
    hann = torch.hann_window(510, dtype=torch.float64)
    theirs = torch.stft(x[0], 510, 128, window=hann, center=False, return_complex=True)[0, 1:-1]
    S = STFT(4000)
    ours = Compress(S.oshape)(S(x))[0, :, 1:-1]
    sizes = [v.square().mean().sqrt() for v in (0.15 * theirs.abs().sqrt(), ours[..., 4:-4].norm(dim=0))]
    torch.testing.assert_close(sizes[1], sizes[0], rtol=0.02, atol=0)


def test_a_gap_leaves_out_what_is_missing():
    x = torch.arange(10.0)[None, None]
    A = Gap((1, 10), [(2, 4), (3, 6), (9, 10)])
    assert A(x).tolist() == [[[0, 1, 6, 7, 8]]]
    assert A.adjoint(A(x)).tolist() == [[[0, 1, 0, 0, 0, 0, 6, 7, 8, 0]]]


def test_lowpass_passes_low_tones_in_place_and_stops_high_ones():
    length, inside = 4096, slice(200, -200)
    A = Lowpass(length, 0.5)  # 4 kHz
    low, high = tone(3000, length), tone(5000, length)
    torch.testing.assert_close(A(low)[..., inside], low[..., inside], rtol=0, atol=0.01)
    assert float(A(high)[..., inside].abs().max()) < 0.01
    assert float(A(tone(4000, length))[..., inside].abs().max()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_lower_rate_samples_the_tone_where_it_was(factor):
    length = 4800
    A = Resample(length, factor)
    low, high = tone(0.7 * 8000 / factor, length), tone(1.1 * 8000 / factor, length)
    inside = slice(100, -100)
    torch.testing.assert_close(A(low)[..., inside], low[..., ::factor][..., inside], rtol=0, atol=0.01)
    assert float(A(high)[..., inside].abs().max()) < 0.02  # does not alias


def test_what_a_lower_rate_does_not_carry_is_not_in_the_solution():
    A = Resample(2400, 2)
    x = A.pinv(A(tone(2000, 2400) + tone(6000, 2400)))
    torch.testing.assert_close(x[..., 200:-200], tone(2000, 2400)[..., 200:-200], rtol=0, atol=0.02)


def test_reverb_is_convolution():
    h, x = torch.randn(40, generator=generator(2), dtype=torch.float64), audio(100)
    for boundary in ("full", "valid"):
        wanted = np.convolve(x[0, 0].numpy(), h.numpy(), boundary)
        np.testing.assert_allclose(Reverb(h, 100, boundary)(x)[0, 0], wanted, atol=1e-12)


@pytest.mark.parametrize("boundary", ["full", "valid"])
def test_a_room_is_solved_in_tens_of_iterations(boundary, monkeypatch):
    from operators import valid

    decay = torch.exp(-torch.arange(800) / 120.0)
    A = Reverb(decay * torch.randn(800, generator=generator(3)), 6000, boundary)
    calls = []
    real = valid.cg

    def counted(matvec, b, **kwargs):
        return real(lambda v: (calls.append(1), matvec(v))[1], b, **kwargs)

    monkeypatch.setattr(valid, "cg", counted)
    b = audio(6000)
    x = A.solve(b, 1e3, 1.0)
    torch.testing.assert_close(1e3 * A.normal(x) + x, b, rtol=0, atol=1e-5)
    precise = len(calls)
    assert precise < 80
    A.solve(b.float(), 1e3, 1.0)  # no further than single precision goes
    assert len(calls) - precise < 0.8 * precise
    y = A(b)
    torch.testing.assert_close(A.pull(y.float(), 1e-6).double(), A.pull(y, 1e-6), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: STFT(0), ShapeError, "0 samples"),
        (lambda: STFT(100, 16, 16), ValueError, r"every 16 does not cover all samples.*at most half.*8"),
        (lambda: STFT(100, 16, 0), ValueError, "hop must be a whole number"),
        (lambda: STFT(100, 0, 1), ValueError, "one row"),
        (lambda: ISTFT(100, torch.ones(2, 8), 4), ValueError, r"one row.*\(2, 8\)"),
        (lambda: STFT(100, torch.full((8,), torch.nan), 4), ValueError, "finite"),
        (lambda: Compress((1, 3, 4)), ShapeError, "real and imaginary"),
        (lambda: Compress((2, 3, 4), exponent=0.0), ValueError, "must be positive"),
        (lambda: Gap((1, 10), [(3, 12)]), ValueError, "from 3 to 12 is not within.*0 to 10"),
        (lambda: Gap((1, 10), [(3, 3)]), ValueError, "from 3 to 3"),
        (lambda: Gap((1, 10), [(0, 10)]), ValueError, "leave nothing"),
        (lambda: Lowpass(100, 1.5), ValueError, "cutoff must be between 0 and 1"),
        (lambda: Lowpass(100, 0.5), ShapeError, r"filter \(129 samples\) is longer than the audio \(100\)"),
        (lambda: Lowpass(100, 0.5, 10), ValueError, "odd"),
        (lambda: Resample(1001, 2), ShapeError, "cut them to 1000"),
        (lambda: Resample(1000, 1), ValueError, "at least 2"),
        (lambda: Resample(1000, 2, rolloff=1.2), ValueError, "rolloff"),
        (lambda: Resample(60, 2), ShapeError, "longer than the audio"),
        (lambda: Reverb(torch.ones(2, 3), 10), ShapeError, "choose one channel"),
        (lambda: Reverb(torch.zeros(3), 10), ValueError, "zero"),
        (lambda: Reverb(torch.ones(11), 10, "valid"), ShapeError, r"response \(11 samples\) is longer"),
        (lambda: Reverb(torch.ones(3), 10, "same"), ValueError, "'full' or 'valid'"),
        (lambda: Diagonal(torch.tensor([1.0, torch.inf])), ValueError, "infinite"),
        (lambda: Stationary(torch.zeros(4)), ValueError, "positive"),
        (lambda: Stationary(torch.ones(4, 2)), ValueError, "1-dimensional"),
        (lambda: NMF(torch.ones(4, 2), torch.ones(3, 5)), ValueError, "how many sounds"),
        (lambda: Varying(torch.zeros(4, 2)), ValueError, "variances must be 2-dimensional and hold positive numbers"),
        (lambda: NMF(torch.ones(4, 2), -torch.ones(2, 5)), ValueError, "H must be"),
        (lambda: NMF(torch.ones(4, 2), torch.ones(2, 5), updates=0), ValueError, "updates"),
        (lambda: Stationary.of(torch.zeros(1, 2, 4, 5)), ValueError, "no noise to fit"),
        (lambda: NMF.start(torch.full((1, 2, 4, 5), torch.nan), 2, Draws(0)), ValueError, "positive number, got nan"),
    ],
)
def test_refusals_say_what_is_wrong(make, error, words):
    with pytest.raises(error, match=words):
        make()


# Noise whose variance differs from number to number.


def sounds(bins: int = 6, count: int = 400) -> NMF:
    g = generator(5)
    W = torch.rand(bins, 2, generator=g, dtype=torch.float64) ** 3 + 0.01
    return NMF(W / W.sum(0), torch.rand(2, count, generator=g, dtype=torch.float64) ** 3 + 0.01)


NOISES = [
    Stationary(torch.tensor([0.5, 0.1, 0.01])),
    NMF(torch.rand(3, 2) + 0.1, torch.rand(2, 40) + 0.1),
    Varying(torch.rand(3, 40) + 0.1),
]


@pytest.mark.parametrize("noise", NOISES, ids=str)
def test_samples_follow_the_likelihood(noise):
    z = torch.randn(1, 2, 3, 40, generator=generator(1), dtype=torch.float64)
    y = noise.sample(z, Draws(2, range(500)))
    assert torch.equal(noise.sample(z, Draws(2, [7])), y[7:8])
    variance = noise.variance.expand(2, 3, 40)
    r = y - z
    spread = r.square().mean(0) / variance
    assert float(spread.mean()) == pytest.approx(1, abs=0.02) and float(r.mean() / r.std()) == pytest.approx(
        0, abs=0.02
    )
    wanted = torch.distributions.Normal(z, variance.sqrt()).log_prob(y).flatten(1).sum(1)
    torch.testing.assert_close(noise.log_prob(y, z), wanted)
    with pytest.raises(ValueError, match="random generators"):
        noise.sample(z.expand(3, -1, -1, -1), Draws(0))


def test_a_spectrum_is_fitted_from_a_stretch_of_noise_or_from_what_draws_leave():
    noise = Stationary(torch.tensor([0.5, 0.1, 0.01]).double())
    z = torch.randn(1, 2, 3, 5000, generator=generator(1), dtype=torch.float64)
    y = noise.sample(z, Draws(2))
    for found in (Stationary.of(y - z), Stationary(torch.ones(3)).fit(y, z)):
        torch.testing.assert_close(found.spectrum, noise.spectrum, rtol=0.05, atol=0)
    spread = z + 0.3 * torch.randn(4, 2, 3, 5000, generator=generator(3), dtype=torch.float64)
    torch.testing.assert_close(noise.fit(y, spread).spectrum, noise.spectrum + 0.09, rtol=0.05, atol=0)


def test_the_divergence_never_rises_and_the_sounds_are_found():
    noise = sounds()
    zero = torch.zeros(1, 2, 6, 400, dtype=torch.float64)
    y = noise.sample(zero, Draws(3))
    V = y.square().mean((0, 1))
    start = NMF.start(y, 2, Draws(4), updates=300)
    W, H, found = start.W, start.H, [itakura_saito(V, start.variance)]
    for _ in range(300):
        W, H = multiplicative_update(V, W, H)
        found.append(itakura_saito(V, W @ H))
    assert all(b <= a + 1e-9 * abs(a) for a, b in pairwise(found))
    fitted = start.fit(y, zero)
    torch.testing.assert_close(fitted.variance, W @ H)
    assert itakura_saito(V, fitted.variance) < itakura_saito(V, noise.variance)  # likelier than the truth
    torch.testing.assert_close(fitted.W.sum(0), torch.ones(2, dtype=torch.float64))
    off = min(float((w - noise.W).abs().max()) for w in (fitted.W, fitted.W.flip(1)))  # in either order
    assert off < 0.06


def test_the_divergence_is_the_likelihood():
    noise, other = sounds(), sounds().fit(torch.randn(1, 2, 6, 400), torch.zeros(1, 2, 6, 400))
    zero = torch.zeros(1, 2, 6, 400, dtype=torch.float64)
    y = noise.sample(zero, Draws(3))
    V = y.square().mean((0, 1))
    less = itakura_saito(V, noise.variance) - itakura_saito(V, other.variance)
    assert float(other.log_prob(y, zero) - noise.log_prob(y, zero)) == pytest.approx(less)


def test_silence_in_a_recording_is_no_reason_to_fail():
    y = sounds().sample(torch.zeros(1, 2, 6, 400, dtype=torch.float64), Draws(3))
    y[..., 100:200] = 0
    y[:, :, 0] = 0
    for start in (NMF.start(y, 3, Draws(0)), Stationary.of(y)):
        found = start.fit(y, torch.zeros_like(y))
        assert bool(torch.isfinite(found.variance).all()) and float(found.variance.min()) > 0
        assert bool(torch.isfinite(found.log_prob(y, torch.zeros_like(y))).all())
