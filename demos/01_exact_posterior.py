"""Each sampler against the exact posterior, in two dimensions where both can be seen.

The "picture" has two pixels, the prior is a mixture of Gaussians, one noisy number is measured: the sum of the pixels.
Then the posterior is known in closed form (grey contours), and each sampler's draws (dots) agree with it or do not.

    python demos/01_exact_posterior.py --output exact_posterior.png
"""

import argparse
import math
from pathlib import Path

import torch
import yaml
from hydra.utils import instantiate

from operators.base import LinearOperator
from operators.noise import Gaussian
from operators.random import Draws
from restore.core import restore
from restore.priors.analytic import GaussianMixture
from restore.problem import Problem

SAMPLERS = Path(__file__).parents[1] / "configs" / "sampler"


class Sum(LinearOperator):
    """`y = (x_1 + x_2) / sqrt(2)`: all it takes to write an operator whose rows are orthonormal."""

    gram = 1.0

    def __init__(self) -> None:
        super().__init__((1, 1, 2), (1,))

    def forward(self, x):
        return x.sum((1, 2, 3))[:, None] / math.sqrt(2)


def two_pixels() -> tuple[GaussianMixture, Problem]:
    """Four elongated clusters, and a measurement that three of them explain about equally well."""
    means = torch.tensor([[-1.3, 1.2], [0.1, 0.2], [1.5, -0.9], [1.4, 1.5]])
    angles, long, short = torch.tensor([0.9, -0.4, 0.3, 2.0]), 0.45, 0.16
    axes = torch.stack([torch.stack([angles.cos(), -angles.sin()], 1), torch.stack([angles.sin(), angles.cos()], 1)], 1)
    covariances = axes * torch.tensor([long, short]).square() @ axes.mT
    prior = GaussianMixture(torch.tensor([0.3, 0.2, 0.3, 0.2]), means.reshape(4, 1, 1, 2), covariances)
    return prior, Problem(torch.tensor([[0.25]], dtype=torch.float64), Sum(), Gaussian(0.3))


def main() -> None:
    parser = argparse.ArgumentParser(description="Samplers against an exact posterior, one figure.")
    parser.add_argument("--draws", type=int, default=600)
    parser.add_argument("--output", type=Path, default=Path("outputs/exact_posterior.png"))
    args = parser.parse_args()
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise SystemExit("this demo draws a figure with matplotlib: pip install 'restore-posterior[demo]'") from None

    prior, problem = two_pixels()
    posterior = prior.posterior(problem)
    exact = {"exact": posterior.sample(Draws(0, range(args.draws)))}
    drawn = {
        path.stem: restore(problem, prior, sampler, num_samples=args.draws).samples
        for path in sorted(SAMPLERS.glob("*.yaml"))
        if (sampler := instantiate(yaml.safe_load(path.read_text())))
    }

    axis = torch.linspace(-2.6, 2.6, 240, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 1, 1, 2)
    before, after = (p.log_prob(grid).exp().reshape(240, 240) for p in (prior, posterior))
    columns = min(3, 1 + len(drawn))
    rows = math.ceil((1 + len(drawn)) / columns)
    figure, panels = plt.subplots(rows, columns, figsize=(4 * columns, 4.3 * rows), squeeze=False, layout="constrained")
    for panel in panels.flat[1 + len(drawn) :]:
        panel.axis("off")
    for panel, (name, samples) in zip(panels.flat, (exact | drawn).items(), strict=False):
        x, belongs = samples.flatten(1), posterior.responsibilities(samples)
        wrong = 0.5 * (belongs.mean(0) - posterior.weights).abs().sum().item()
        deviation = x[:, None] - posterior.means.flatten(1)  # (draws, clusters, 2)
        squared = torch.einsum("nki,kij,nkj->nk", deviation, torch.linalg.inv(posterior.covariances), deviation)
        spread = ((belongs * squared).sum(1).mean() / 2).sqrt().item()  # 1 when each cluster is as wide as it should be
        panel.contourf(axis, axis, before, levels=8, cmap="Blues", alpha=0.35)
        panel.contour(axis, axis, after, levels=7, colors="0.25", linewidths=0.8)
        panel.axline((0.25 / math.sqrt(2),) * 2, slope=-1, color="tab:red", lw=1, ls="--")  # what y says, noise apart
        panel.scatter(*x.T, s=5, color="tab:orange", alpha=0.6, linewidths=0)
        panel.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), xticks=[], yticks=[], aspect="equal")
        title = f"{name}\n{100 * wrong:.0f} % of draws in the wrong cluster, spread x {spread:.2f}"
        panel.set_title(title, fontsize=10)
    figure.suptitle("Two pixels: prior (blue), what was measured (red), exact posterior (lines), draws (dots)")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=130)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
