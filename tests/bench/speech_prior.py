"""How well a prior on speech takes white noise off recordings, and how well it knows its errors: two tables.

    python tests/bench/speech_prior.py --prior my-prior --data ../shared/data/speech/validation

Denoising: SI-SDR (dB), mean and standard deviation over the recordings, of what is noisy, of a Wiener filter in the
same frames with the noise known, and of the posterior mean of the prior. Errors: bits per number of frames that are
saved against one variance for all numbers of a recording, by one for each frequency, both fitted to the very errors,
and by the table of the prior.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor

from restore.audio_metrics import si_sdr
from restore.learn.data import find_pictures
from restore.learn.speech import FILES, SHOWN, load_speech
from restore.priors.base import Rescaled
from restore.priors.speech import BINS, HOP, SpeechDenoiser, frames_of, noise_in_frames
from restore.priors.store import load_prior

SNRS = (0, 5, 10)
LEVELS = (0.03, 0.1, 0.3, 1.0)


def wiener(y: Tensor, sigma: float, alpha: float = 0.95, least: float = 10**-2.5) -> Tensor:
    """Decision-directed Wiener filter of audio `(1, 1, T)`.

    The signal-to-noise ratio of a number is `alpha` that of the estimate before and `1 - alpha` of what the power seen
    exceeds that of the noise by (Ephraim and Malah, IEEE TASSP 1984, eq. 51), at least -25 dB.
    """
    S = frames_of(y)
    Y = S.forward(y)
    gamma = Y.square().mean(1) / noise_in_frames(torch.tensor(sigma)).to(y) ** 2  # (1, F, N)
    gains, before = [], torch.zeros_like(gamma[..., 0])
    for g in gamma.unbind(-1):
        xi = (alpha * before + (1 - alpha) * (g - 1).clamp(min=0)).clamp(min=least)
        gains.append(xi / (1 + xi))
        before = gains[-1].square() * g
    return S.adjoint(Y * torch.stack(gains, -1)[:, None])


def denoising(prior: SpeechDenoiser, recordings: list[Tensor]) -> list[str]:
    found: dict[str, list[list[float]]] = {"noisy": [], "Wiener filter": [], "prior": []}
    for snr in SNRS:
        each: dict[str, list[float]] = {name: [] for name in found}
        for i, x in enumerate(recordings):
            sigma = float(x.std()) * 10 ** (-snr / 20)
            y = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
            for name, estimate in (("noisy", y), ("Wiener filter", wiener(y, sigma)), ("prior", prior(y, sigma))):
                each[name].append(si_sdr(estimate[0, 0].double().numpy(), x[0, 0].double().numpy()))
        for name, scores in each.items():
            found[name].append(scores)
    head = ["| SI-SDR (dB) | " + " | ".join(f"{snr} dB" for snr in SNRS) + " |", "|---" * (len(SNRS) + 1) + "|"]
    cell = "{:.1f} ± {:.1f}"
    return head + [
        f"| {name} | " + " | ".join(cell.format(fmean(s), stdev(s)) for s in scores) + " |"
        for name, scores in found.items()
    ]


def bits(wrong: Tensor, variance: Tensor) -> float:
    """Cross entropy of `N(0, variance)` in bits, but for a constant."""
    return float((wrong.square() / variance + variance.log()).mean() / 2 / torch.log(torch.tensor(2.0)))


def errors(prior: SpeechDenoiser, recordings: list[Tensor]) -> list[str]:
    assert prior.errors is not None
    rows = []
    for sigma in LEVELS:
        gains: list[tuple[float, float]] = []
        for i, x in enumerate(recordings):
            y = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
            S = frames_of(y)
            wrong = S.forward(prior(y, sigma) - x)
            power = wrong.square()
            table = prior.errors.variances(S.forward(y), sigma) * HOP / (2 * BINS)
            one = bits(wrong, power.mean())
            gains.append((one - bits(wrong, power.mean((1, 3), keepdim=True)), one - bits(wrong, table)))
        rows.append(f"| {sigma:g} | " + " | ".join(f"{fmean(g):.2f}" for g in zip(*gains, strict=True)) + " |")
    return ["| sigma | one variance per frequency | table |", "|---|---|---|", *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", default="speech-16k")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of clean recordings")
    parser.add_argument("--files", type=int, help="at most so many recordings")
    args = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_prior(args.prior)
    assert isinstance(loaded, Rescaled) and isinstance(loaded.prior, SpeechDenoiser)
    paths = find_pictures(args.data, FILES, "recordings")[: args.files]
    recordings = [x[None, None, :SHOWN] for x in load_speech(paths)]
    with torch.no_grad():
        print("\n".join([*denoising(loaded.prior, recordings), "", *errors(loaded.prior, recordings)]))


if __name__ == "__main__":
    main()
