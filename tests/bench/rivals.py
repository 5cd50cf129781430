"""deepinv's DPIR and DiffPIR on the same prior, operator and data, through the interop of both packages."""

from __future__ import annotations

from collections.abc import Callable

import deepinv
import torch
from torch import Tensor

from operators.interop import to_deepinv as physics_of
from restore.priors.base import Denoiser
from restore.priors.external import to_deepinv as model_of
from restore.problem import Problem

Method = Callable[[Problem, Denoiser, int], Tensor]

# (lambda, zeta) as published for each task (Zhu et al. 2023, and the authors' repository); deepinv's are (7, 0.1).
PUBLISHED = {"inpaint": (7.0, 1.0), "deblur": (7.0, 0.3), "upscale": (8.0, 0.2)}


def dpir(problem: Problem, prior: Denoiser, seed: int) -> Tensor:
    """DPIR (Zhang et al. 2021), 8 iterations, deepinv's parameters. Deterministic."""
    A, sigma = problem.linear_gaussian
    return deepinv.optim.DPIR(sigma=sigma, denoiser=model_of(prior))(problem.y, physics_of(A, problem.noise))


def diffpir(problem: Problem, prior: Denoiser, seed: int, **parameters: float) -> Tensor:
    """DiffPIR (Zhu et al. 2023), 100 iterations, one draw."""
    A, sigma = problem.linear_gaussian
    torch.manual_seed(seed)  # deepinv draws from torch's global generator
    sampler = deepinv.sampling.DiffPIR(
        model=model_of(prior), data_fidelity=deepinv.optim.data_fidelity.L2(), sigma=sigma, **parameters
    )
    return sampler(problem.y, physics_of(A, problem.noise))


def methods(task: str) -> dict[str, Method]:
    lambda_, zeta = PUBLISHED[task]
    return {
        "deepinv DPIR": dpir,
        "deepinv DiffPIR": diffpir,
        "deepinv DiffPIR published": lambda *a: diffpir(*a, lambda_=lambda_, zeta=zeta),
    }
