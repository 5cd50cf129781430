"""The draw that split samplers take: of a Gaussian around a guess, given the data."""

from __future__ import annotations

import math

from torch import Tensor

from operators.base import LinearOperator, pull
from operators.random import Draws
from restore.problem import Problem


def draw_given_data(problem: Problem, guess: Tensor, variance: float, rng: Draws) -> Tensor:
    """An exact draw of `x ~ N(guess, variance I)` given `y = A x + N(0, sigma_y^2 I)`, `(B, *ishape)`.

    Perturb and solve (Papandreou and Yuille 2010): draw `x` and `y` from the joint law, then move by the difference.
    """
    A, sigma_y = problem.linear_gaussian
    z = guess + math.sqrt(variance) * rng.normal(A.ishape, like=guess)
    return z + pull(A, problem.y + sigma_y * white_data(A, rng, guess) - A.forward(z), sigma_y**2 / variance)


def white_data(A: LinearOperator, rng: Draws, like: Tensor) -> Tensor:
    """White noise of the data, `(B, *oshape)`; where possible the image of noise on the signal: tiles agree on it."""
    if A.gram is not None:
        return A.forward(rng.normal(A.ishape, like=like)) / math.sqrt(A.gram)
    return rng.normal(A.oshape, like=like)
