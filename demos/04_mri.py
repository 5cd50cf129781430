"""A slice from a quarter of its k-space: what it was, and how sure one can be. A phantom, or any scan.

python demos/04_mri.py --output mri.png
python demos/04_mri.py scan.h5 --slice 12 --output mri.png
python demos/04_mri.py undersampled.cfl --accel given
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from skimage.data import shepp_logan_phantom
from skimage.restoration import denoise_tv_chambolle
from skimage.transform import resize

from operators.mri import to_channels, to_complex
from restore.cli.settings import settings
from restore.cli.working import tools
from restore.core import restore
from restore.jobs import Job
from restore.modalities.mri import fft2
from restore.problem import Problem
from restore.scan_pose import pose
from restore.scan_prepare import ScanRequest, prepare_scan

try:
    import pywt
except ImportError:
    pywt = None

SIZE, COILS, NOISE = 192, 8, 0.01
SPARSE = "L1 of wavelets" if pywt else "TV of CG-SENSE (no PyWavelets)"


def phantom() -> np.ndarray:
    """K-space of eight coils on a ring around the Shepp-Logan phantom, which has a smooth phase: `(coil, y, x)`."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    image = resize(shepp_logan_phantom(), (SIZE, SIZE), anti_aliasing=True) * np.exp(1j * (1 + x + y * y))
    angle = 2 * np.pi * np.arange(COILS)[:, None, None] / COILS
    maps = np.exp(-((y - 1.2 * np.sin(angle)) ** 2 + (x - 1.2 * np.cos(angle)) ** 2) / 2 + 1j * angle * (1 + x / 4))
    k = fft2(maps / np.sqrt((np.abs(maps) ** 2).sum(0)) * image)
    rng = np.random.default_rng(0)
    return k + (NOISE * (rng.standard_normal(k.shape) + 1j * rng.standard_normal(k.shape))).astype(np.complex64)


def sparse(problem: Problem, x: torch.Tensor, weight: float, iterations: int = 100) -> torch.Tensor:
    """`argmin ||y - A x||^2 / 2 + weight ||W x||_1` for wavelets `W`, by FISTA (Beck and Teboulle 2009) from `x`.

    Without PyWavelets `x` smoothed by total variation, its magnitude alone.
    """
    if pywt is None:
        smooth = denoise_tv_chambolle(to_complex(x)[0, 0].abs().numpy(), weight=weight)
        return to_channels(torch.from_numpy(smooth + 0j)[None])[None]

    def shrunk(v: torch.Tensor, by: float) -> torch.Tensor:
        coefficients = pywt.wavedec2(to_complex(v)[0, 0].numpy(), "db4", mode="periodization", level=4)
        array, where = pywt.coeffs_to_array(coefficients)
        array *= np.maximum(1 - by / np.maximum(np.abs(array), 1e-12), 0)
        coefficients = pywt.array_to_coeffs(array, where, output_format="wavedec2")
        image = pywt.waverec2(coefficients, "db4", mode="periodization")[: v.shape[-2], : v.shape[-1]]
        return to_channels(torch.from_numpy(image)[None])[None].to(v)

    A, z, t = problem.operator, x, 1.0
    b = v = A.adjoint(problem.y)
    for _ in range(20):
        v = A.normal(v / v.norm())
    L = 1.1 * float(v.norm())  # not below the largest eigenvalue of A'A
    for _ in range(iterations):
        last, x = x, shrunk(z - (A.normal(z) - b) / L, weight / L)
        t, s = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        z = x + (s - 1) / t * (x - last)
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description="Reconstruct a slice of an MRI scan, one figure.")
    parser.add_argument(
        "scan", type=Path, nargs="?", help="fully sampled, or any with --accel given; default: a phantom"
    )
    parser.add_argument("--slice", type=int, help="default: the middle one")
    parser.add_argument("--accel", default="4", help="R, 2x2, or given for a scan whose lines were left out already")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--prior", default="brain-mri")
    parser.add_argument("--sampler", default="moment_matching")
    parser.add_argument("--output", type=Path, default=Path("outputs/mri.png"))
    args = parser.parse_args()
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise SystemExit("this demo draws a figure with matplotlib: pip install 'restore-posterior[demo]'") from None

    composed = settings([f"prior.name={args.prior}", f"sampler={args.sampler}", "recipe=mri_${sampler}"])
    kit, request = (
        tools(json.dumps(composed)),
        ScanRequest(composed, noise=NOISE if args.scan is None else None, accel=args.accel, draws=args.draws),
    )
    with tempfile.TemporaryDirectory() as folder:
        source = args.scan or Path(folder) / "phantom.npy"
        if args.scan is None:
            np.save(source, phantom())
        prepared = prepare_scan(Job(source, args.output, args.output.stem, Path(source.name)), request, kit)
        posed = pose(prepared, request, prepared.scan.slices // 2 if args.slice is None else args.slice)
    if posed is None:
        raise SystemExit("this slice holds no data: choose another with --slice")
    problem, sigma = posed.problem, posed.problem.noise.sigma
    print(f"{prepared.scan}\nnoise {sigma:.3g} of the brightness, {prepared.estimated}")

    truth = None if posed.truth is None else np.abs(posed.truth) / posed.scale

    def magnitude(x: torch.Tensor) -> np.ndarray:
        return np.abs(posed.images(x)[0]) / posed.scale

    def best(method: Callable[[float], torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
        """With the best of the weights, in hindsight; with the second where the truth is not known."""
        if truth is None:
            return method(weights[1])
        return min(map(method, weights), key=lambda x: float(np.square(magnitude(x) - truth).sum()))

    A = problem.operator
    cg_sense = best(lambda w: A.solve(A.adjoint(problem.y), 1.0, w * sigma**2), (1, 10, 100))
    regularised = best(lambda w: sparse(problem, cg_sense, w * sigma), (0.1, 0.25, 0.5, 1))
    result = restore(
        problem,
        kit.prior,
        kit.sampler,
        num_samples=args.draws,
        callback=lambda step, steps, noise, x: print(f"\rstep {step} of {steps}", end="", flush=True),
    )
    draws = np.abs(posed.images(result.samples)) / posed.scale
    hindsight = "" if truth is None else ", best weight"
    images = {
        "zero-filled": np.abs(posed.alone) / posed.scale,
        "CG-SENSE" + hindsight: magnitude(cg_sense),
        SPARSE + hindsight: magnitude(regularised),
        f"ours, mean of {args.draws} draws": draws.mean(0),
    }
    print(f"\ndata fit {result.residual().mean():.2f}, {result.seconds:.0f} s, {result.nfe:.0f} calls per draw")

    figure, panels = plt.subplots(2, 5, figsize=(18, 7.5), layout="constrained")
    spread = draws.std(0, ddof=1)
    top = float(np.quantile(spread if truth is None else np.abs(images["CG-SENSE" + hindsight] - truth), 0.99))
    for (above, below), (words, image) in zip(panels.T[:4], images.items(), strict=True):
        if truth is not None:
            error = np.abs(image - truth)
            words += f", {20 * np.log10(truth.max() / np.sqrt(np.square(error).mean())):.1f} dB"
            below.imshow(error, cmap="magma", vmin=0, vmax=top)
            below.set_title(f"|error|, mean {error.mean():.3f}")
        above.imshow(image, cmap="gray", vmin=0, vmax=1)
        above.set_title(words)
        print(words)
    if truth is not None:
        panels[0, 4].imshow(truth, cmap="gray", vmin=0, vmax=1)
        panels[0, 4].set_title("all data, coils combined")
    shown = panels[1, 4].imshow(spread, cmap="magma", vmin=0, vmax=top)
    panels[1, 4].set_title(f"std of the draws, mean {spread.mean():.3f}")
    figure.colorbar(shown, ax=panels[1, 4], fraction=0.046)
    for panel in panels.flat:
        panel.axis("off")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=110)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
