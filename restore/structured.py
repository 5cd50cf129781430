"""Structured noise: `y = A x + n + white noise`, where `n` has a prior of its own.

It is the linear problem of two sources, so that every sampler does joint diffusion (Stevens et al. 2023,
arXiv:2302.05290):

    problem, prior = joint(problem, prior, noise_prior)
    x, n = apart(restore(problem, prior, sampler))
"""

from __future__ import annotations

from dataclasses import replace

from operators.base import Identity, LinearOperator
from operators.compose import HStack
from restore.core import Restoration
from restore.priors.base import Denoiser
from restore.priors.product import Product
from restore.problem import Problem


def joint(problem: Problem, prior: Denoiser, noise_prior: Denoiser) -> tuple[Problem, Product]:
    """The problem and the prior of `(x, n)`, packed.

    Args:
        problem: linear; its noise model is that of the white part.
        prior: of `x`.
        noise_prior: of `n`, in the units of `y` and around zero.

    Raises:
        TypeError: the operator is not linear.
        ValueError: a prior does not take signals of the shape of its source.
    """
    if not isinstance(problem.operator, LinearOperator):
        raise TypeError(f"a linear operator is needed here, got {type(problem.operator).__name__}")
    H = HStack(problem.operator, Identity(problem.operator.oshape))
    return Problem(problem.y, H, problem.noise), Product(prior, noise_prior, shapes=H.pack.shapes)


def apart(restoration: Restoration) -> list[Restoration]:
    """The draws of each source, in the order of the `HStack` they were drawn for: `x`, then `n`.

    Draw `i` of a source answers the problem that is left when draw `i` of the others is taken off the data.

    Raises:
        TypeError: the operator is not a sum of sources.
    """
    problem = restoration.problem
    H = problem.operator
    if not isinstance(H, HStack):
        raise TypeError(f"an HStack of sources is needed here, got {type(H).__name__}")
    sources = H.pack.split(restoration.samples)
    left = problem.y - H.forward(restoration.samples)
    return [
        replace(restoration, samples=v, problem=Problem(left + A.forward(v), A, problem.noise))
        for A, v in zip(H.parts, sources, strict=True)
    ]
