"""How good a denoiser is, and how sure: PSNR with and without truth, and the table of spectra of its errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from restore.denoisers.posterior import PosteriorMean
from restore.denoisers.tweedie import Tweedie
from restore.metrics import four_copies, umse, upsnr
from restore.priors.base import Denoiser, Rescaled
from restore.priors.network import EDMDenoiser
from restore.priors.spectra import CELLS, SpectralTable, residual_spectra, residual_spectra_of_noisy

from .base import Batch, Objective
from .data import LUMINANCE, Patches
from .mri import ComplexPatches
from .mri_noisy import NoisyComplexPatches
from .told import AS_RECORDED

KINDS = {1: "grey", 2: "complex", 3: "colour"}  # by number of channels
CROPS, LEVELS = 48, 18  # behind the table of spectra


def validate(denoiser: Denoiser, pictures: Sequence[Tensor], sigma: float = 25 / 255) -> dict[str, float]:
    """Mean PSNR (dB) at a noise of `sigma` in `[0, 1]`, of the pictures and of their luminance; or of complex images.

    `pictures`, each `(1, C, H, W)`, and `denoiser` are in `[-1, 1]`. The noise is the same at each call.
    """
    psnr: dict[str, list[float]] = {}
    for i, picture in enumerate(pictures):
        kinds = {KINDS[picture.shape[1]]: picture}
        if "colour" in kinds:
            kinds["grey"] = rgb_to_grayscale(picture)
        for kind, clean in kinds.items():
            if not denoiser.accepts(tuple(clean.shape[1:])):
                continue
            rng = torch.Generator().manual_seed(i)
            noisy = clean + 2 * sigma * torch.randn(clean.shape, generator=rng).to(clean)
            with torch.no_grad():
                estimate = denoiser(noisy, 2 * sigma)
            error = ((estimate if kind == "complex" else estimate.clamp(-1, 1)) - clean) / 2
            psnr.setdefault(kind, []).append(-10 * error.square().mean().log10().item())
    return {kind: fmean(values) for kind, values in psnr.items()}


def validate_noisy(
    denoiser: Denoiser, objective: Objective, pictures: Sequence[tuple[Tensor, float]], law: Tweedie | None = None
) -> dict[str, float]:
    """PSNR (dB) at the noise of the pictures themselves, estimated without truth: by the objective's `risk`. Of a
    score, uPSNR of the posterior mean it gives, from the four pictures of half the size that are in each: that holds
    for any noise, and for noise that was clipped; the number lies a little below that of the whole pictures.

    Noisy pictures, each `(1, C, H, W)` with NaN where nothing was seen and the std of its noise (at mid-grey), and
    `denoiser` are in `[-1, 1]`. The mean is taken over the errors, before the logarithm: those of single pictures may
    come out negative.
    """
    rho = 0.0 if law is None else law.rho
    score = PosteriorMean(Rescaled(denoiser, 2, -1), rho) if objective.learns_score else None
    errors: dict[str, list[float]] = {}
    for i, (noisy, sigma) in enumerate(pictures):
        kinds = {KINDS[noisy.shape[1]]: (noisy, sigma)}
        if "colour" in kinds and objective.for_samplers:
            kinds["grey"] = (rgb_to_grayscale(noisy), sigma * LUMINANCE)
        for kind, (y, own) in kinds.items():
            if not denoiser.accepts(tuple(y.shape[1:])):
                continue
            rng = torch.Generator(y.device).manual_seed(i)
            with torch.no_grad():
                if score is not None:
                    given, *others = (c.copy() for c in four_copies((y[0].cpu().numpy() + 1) / 2))
                    estimate = score(torch.from_numpy(given)[None].to(y), own / 2)[0].cpu().numpy()
                    error = umse(estimate, (others[0], others[1], others[2]))
                else:
                    batch = Batch(y.nan_to_num(nan=0.0), torch.full((1,), own).to(y), ~y.isnan())
                    error = objective.risk(denoiser, batch, rng).item() / 4
            errors.setdefault(kind, []).append(error)
    return {kind: upsnr(fmean(values)) for kind, values in errors.items() if fmean(values) > 0}


def measure_spectra(
    denoiser: EDMDenoiser,
    pictures: Sequence[Tensor],
    device: torch.device,
    seed: int,
    *,
    noise: bool = False,
    sigmas: Sequence[float] | None = None,
) -> SpectralTable | None:
    """How sure a denoiser is on patches of what it was trained on: `CROPS` of them, at `LEVELS` noise levels.

    `None` where a picture is too small to have every frequency of the table, or noisier than every level: the default
    covariance has to do.

    Args:
        noise: the pictures are recordings of noise.
        sigmas: the pictures are noisy: std of the noise of each.
    """
    size = min(128, *(n for p in pictures for n in p.shape[1:]))
    if size < 2 * CELLS:
        return None
    levels = torch.logspace(math.log10(max(denoiser.sigma_min, 0.005)), math.log10(min(denoiser.sigma_max, 10)), LEVELS)
    spectra = {}
    for channels in denoiser.network.channels:
        patches: Patches
        if channels == 2:
            patches = ComplexPatches(pictures, size) if sigmas is None else NoisyComplexPatches(pictures, size, sigmas)
        else:
            patches = Patches(pictures, size, grey=float(channels == 1), noise=sigmas, **(AS_RECORDED if noise else {}))
        rng = torch.Generator().manual_seed(seed)
        batches = [patches.batch(8, rng).to(device) for _ in range(CROPS // 8)]
        found: Tensor | None
        if sigmas is None:
            found = residual_spectra(denoiser, [b.x for b in batches], levels.tolist(), seed=seed)
        else:
            found = residual_spectra_of_noisy(denoiser, [(b.x, b.sigma) for b in batches], levels.tolist(), seed=seed)
        if found is None:
            return None
        spectra[channels] = found
    return SpectralTable(levels, spectra)
