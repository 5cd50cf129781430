"""The draw that split samplers take: of a Gaussian around a guess, given the data."""

from __future__ import annotations

import math

from torch import Tensor

from operators.base import pull
from operators.random import Draws
from restore.problem import Problem


def draw_given_data(problem: Problem, guess: Tensor, variance: float, rng: Draws) -> Tensor:
    """An exact draw of `x ~ N(guess, variance I)` given `y = A x + N(0, sigma_y^2 I)`, `(B, *ishape)`.

    Perturb and solve (Papandreou and Yuille 2010): draw `x` and `y` from the joint law, then move by the difference.
    """
    A, sigma_y = problem.linear_gaussian
    z = guess + math.sqrt(variance) * rng.normal(A.ishape, like=guess)
    if A.gram is not None:  # white data noise as the image of white noise on the signal: tiles then agree on it
        noise = A.forward(rng.normal(A.ishape, like=guess)) / math.sqrt(A.gram)
    else:
        noise = rng.normal(A.oshape, like=guess)
    return z + pull(A, problem.y + sigma_y * noise - A.forward(z), sigma_y**2 / variance)
