"""A photograph under coloured noise whose spectrum is known: told so, and told that the noise is white.

python demos/03_structured_noise.py --output structured.png
"""

import argparse
from pathlib import Path

import torch
from skimage import data

from operators.base import Identity
from operators.noise import Gaussian
from operators.random import Draws
from restore.core import restore
from restore.priors.stationary import StationaryGaussian
from restore.priors.store import load_prior
from restore.problem import Problem
from restore.samplers.moment_matching import MomentMatching
from restore.structured import apart, joint

SIZE, WHITE = 128, 0.02


def waves() -> StationaryGaussian:
    """Noise of diagonal waves, std 0.1; a prior on other noise is learnt by `restore learn --noise-only`."""
    f = torch.fft.fftfreq(SIZE)[:, None]
    g = torch.fft.rfftfreq(SIZE)
    power = torch.exp(-(((f - 0.15) / 0.05) ** 2 + ((g - 0.1) / 0.05) ** 2)) + 0.002
    scale = 0.1 / StationaryGaussian(power[None], SIZE).signal_std
    return StationaryGaussian(scale**2 * power[None], SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Separate coloured noise from a photograph, one figure.")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("outputs/structured.png"))
    args = parser.parse_args()
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise SystemExit("this demo draws a figure with matplotlib: pip install 'restore-posterior[demo]'") from None

    truth = torch.from_numpy(data.camera()[60 : 60 + SIZE, 160 : 160 + SIZE].copy())[None, None].float() / 255
    prior, noise_prior = load_prior("photos"), waves()
    n = noise_prior.sample(Draws(1))
    y = Gaussian(WHITE).sample(truth + n, Draws(2))
    problem, sampler = Problem(y, Identity((1, SIZE, SIZE)), Gaussian(WHITE)), MomentMatching()

    separated = restore(*joint(problem, prior, noise_prior), sampler, num_samples=args.draws)
    x, noise = apart(separated)
    white = Gaussian(float((y - truth).square().mean().sqrt()))
    told_white = restore(Problem(y, problem.operator, white), prior, sampler, num_samples=args.draws)

    def titled(words: str, mean: torch.Tensor) -> str:
        psnr = -10 * (mean - truth[0]).square().mean().log10().item()
        print(f"{words}: {psnr:.2f} dB")
        return f"{words}, {psnr:.1f} dB"

    figure, panels = plt.subplots(1, 6, figsize=(20, 4), layout="constrained")
    pictures = {
        "truth": truth[0],
        "what was measured": y[0],
        titled("told what the noise is", x.mean): x.mean,
        titled("told that it is white", told_white.mean): told_white.mean,
        "separated noise": noise.mean + 0.5,
        "the noise": n[0] + 0.5,
    }
    for panel, (title, picture) in zip(panels, pictures.items(), strict=True):
        panel.imshow(picture[0], cmap="gray", vmin=0, vmax=1)
        panel.set_title(title)
        panel.axis("off")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=120)
    print(f"data fit {separated.residual().mean():.2f}, {separated.seconds:.0f} s; wrote {args.output}")


if __name__ == "__main__":
    main()
