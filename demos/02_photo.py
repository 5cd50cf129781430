"""A photograph with 70 % of its pixels missing and noise on the rest: what it was, and how sure one can be.

python demos/02_photo.py --output photo.png
"""

import argparse
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from skimage import data

from operators.image import Mask
from operators.noise import Gaussian
from operators.random import Draws, generator
from restore.core import restore
from restore.priors.store import load_prior
from restore.problem import Problem

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def main() -> None:
    parser = argparse.ArgumentParser(description="Inpaint a photograph through the Python API, one figure.")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("outputs/photo.png"))
    args = parser.parse_args()
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise SystemExit("this demo draws a figure with matplotlib: pip install 'restore-posterior[demo]'") from None

    truth = torch.from_numpy(data.astronaut()[:256, 64:320].copy()).permute(2, 0, 1)[None].float() / 255
    kept = torch.rand(256, 256, generator=generator(0)) > 0.7
    A, noise = Mask(kept, channels=3), Gaussian(0.05)
    problem = Problem(noise.sample(A(truth), Draws(1)), A, noise)

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        sampler = instantiate(compose("config", ["operator=mask", "sampler=diffpir"])["sampler"])
    result = restore(
        problem,
        load_prior("photos"),
        sampler,
        num_samples=args.draws,
        callback=lambda step, steps, sigma, x: print(f"\rstep {step} of {steps}", end="", flush=True),
    )
    error = (result.mean - truth[0]).square().mean(0).sqrt()  # root mean square over the colours
    spread = result.std.square().mean(0).sqrt()
    fit = result.residual().mean().item()
    psnr = -10 * (result.mean.clamp(0, 1) - truth[0]).square().mean().log10().item()
    print(f"\n{psnr:.2f} dB, data fit {fit:.2f}, {result.seconds:.0f} s, {result.nfe:.0f} calls per draw")

    figure, panels = plt.subplots(1, 5, figsize=(17, 4), layout="constrained")
    pictures = {
        "truth": truth[0],
        "what was measured": A.adjoint(problem.y)[0],
        f"mean of {args.draws} draws, {psnr:.1f} dB": result.mean,
    }
    for panel, (title, picture) in zip(panels, pictures.items(), strict=False):
        panel.imshow(picture.permute(1, 2, 0).clamp(0, 1))
        panel.set_title(title)
    maps = {"std of the draws": spread, "|error| of the mean": error}
    top = error.quantile(0.99).item()
    for panel, (title, values) in zip(panels[3:], maps.items(), strict=True):
        shown = panel.imshow(values, cmap="magma", vmin=0, vmax=top)
        panel.set_title(f"{title}, mean {values.mean():.3f}")
    figure.colorbar(shown, ax=panels[-1], fraction=0.046)
    for panel in panels:
        panel.axis("off")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=120)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
