"""A voice out of noise that nobody described: spectrograms of what was heard, what was said, and how sure that is.

python demos/05_speech.py --output speech.png
python demos/05_speech.py noisy.wav --ref clean.wav --output speech.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.signal import lfilter, resample_poly

from operators.stft import STFT
from restore import beside
from restore.audio_metrics import si_sdr
from restore.cli import main as restore_command
from restore.priors.speech import RATE

SNR = 5  # dB
# Hertz of the first three resonances of a mouth, and how long each is held in seconds: "aioueai", near enough.
VOWELS = [(730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240), (530, 1840, 2480)]
HELD, PAUSE = 0.22, 0.12


def voice() -> np.ndarray:
    """Vowels of a voice whose pitch falls, with pauses between them and hiss before every other one."""
    rng, pieces = np.random.default_rng(0), []
    for i, formants in enumerate([*VOWELS, *VOWELS[:2]]):
        n = int(HELD * RATE)
        pitch = (150 - 7 * i) * (1 + 0.06 * np.sin(np.linspace(0, np.pi, n)))
        x = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0)  # a pulse for each period
        x = lfilter([1], [1, -0.97], x)
        for f, width in zip(formants, (80, 100, 140), strict=True):
            r = np.exp(-np.pi * width / RATE)
            x = lfilter([1 - r], [1, -2 * r * np.cos(2 * np.pi * f / RATE), r * r], x)
        x *= np.hanning(n) ** 0.3 / np.abs(x).max()
        if i % 2:
            m = int(0.08 * RATE)
            pieces.append(0.08 * np.hanning(m) * lfilter([1, -0.9], [1], rng.standard_normal(m)))
        pieces += [x, np.zeros(int(PAUSE * RATE))]
    return 0.3 * np.concatenate([np.zeros(RATE // 4), *pieces])


def fan(length: int) -> np.ndarray:
    """A hum and its rush of air, which swells."""
    t = np.arange(length) / RATE
    air = lfilter([1], [1, -0.95], np.random.default_rng(1).standard_normal(length))
    return (1 + 0.4 * np.sin(5 * t)) * air + sum(3 / k * np.sin(2 * np.pi * 97 * k * t + k) for k in (1, 2, 3))


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.square(x).mean()))


def spectrogram(x: np.ndarray) -> np.ndarray:
    """Decibels, `(frequency, frame)`; of several `(draw, T)` those of their mean power."""
    x = np.atleast_2d(x)
    frames = STFT(x.shape[-1]).forward(torch.from_numpy(x)[:, None])
    return 10 * np.log10(frames.square().sum(1).mean(0).numpy() + 1e-12)


def heard(path: Path) -> np.ndarray:
    import soundfile

    x, rate = soundfile.read(path, always_2d=True)
    return resample_poly(x.mean(1), RATE, rate) if rate != RATE else x.mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Restore a noisy recording, one figure, and its draws as WAV.")
    parser.add_argument("recording", type=Path, nargs="?", help="noisy; default: a voice made by rule, beside a fan")
    parser.add_argument("--ref", type=Path, help="the clean one, to be judged by")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--prior", help="a folder; default: the one that ships")
    parser.add_argument("--output", type=Path, default=Path("outputs/speech.png"))
    args = parser.parse_args()
    try:
        import matplotlib.pyplot as plt
        import soundfile
    except ImportError:
        raise SystemExit(
            "this demo needs matplotlib and soundfile: pip install 'restore-posterior[demo,audio]'"
        ) from None

    args.output.parent.mkdir(parents=True, exist_ok=True)
    noisy, restored, clean = (
        args.output.with_name(f"{args.output.stem}_{n}.wav") for n in ("noisy", "restored", "clean")
    )
    if args.recording is None:
        x = voice()
        n = fan(len(x))
        soundfile.write(clean, x, RATE, subtype="FLOAT")
        soundfile.write(noisy, x + n * rms(x) / rms(n) * 10 ** (-SNR / 20), RATE, subtype="FLOAT")
    else:
        noisy, clean = args.recording, args.ref
    prior = ["--prior", args.prior] if args.prior else []
    asked = ["speech", str(noisy), *prior, f"samples={args.draws}", "-o", str(restored), "--overwrite"]
    if restore_command(asked):
        raise SystemExit(1)

    draws = np.stack(
        [heard(restored.with_name(restored.stem + beside.sample(restored, i + 1))) for i in range(args.draws)]
    )
    sounds = {"noisy": heard(noisy), f"restored, mean of {args.draws} draws": heard(restored), "one draw": draws[0]}
    if clean is not None:
        sounds["clean"] = heard(clean)
    figure, panels = plt.subplots(1, len(sounds) + 1, figsize=(4 * len(sounds) + 4, 3.6), layout="constrained")
    pictures = {name: spectrogram(x) for name, x in sounds.items()}
    top = max(float(picture.max()) for picture in pictures.values())
    for panel, (name, picture) in zip(panels, pictures.items(), strict=False):
        if clean is not None and name != "clean":
            name += f", SI-SDR {si_sdr(sounds[name], sounds['clean']):.1f} dB"
            print(name)
        drawn = panel.imshow(picture, origin="lower", aspect="auto", cmap="magma", vmin=top - 80, vmax=top)
        panel.set_title(name)
    figure.colorbar(drawn, ax=panels[-2], label="dB")
    spread = spectrogram(draws - draws.mean(0)) if args.draws > 1 else np.full_like(picture, top - 80)
    panels[-1].imshow(spread, origin="lower", aspect="auto", cmap="magma", vmin=top - 80, vmax=top)
    panels[-1].set_title("how much the draws differ")
    for panel in panels:
        panel.set_axis_off()
    figure.savefig(args.output, dpi=110)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
