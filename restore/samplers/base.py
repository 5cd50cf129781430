"""What a sampler is: a ladder of noise levels and one pure step from each rung to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from operators.base import LinearOperator, Operator
from operators.linalg import ConvergenceError
from operators.noise import Gaussian, NoiseModel
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem

Callback = Callable[[int, int, float, Tensor], None]


class SamplerError(RuntimeError):
    """A sampler cannot do this problem, or its iteration left the finite numbers."""


@dataclass(frozen=True, kw_only=True)
class Sampler(ABC):
    """Draws from `p(x | y)` given a problem and a denoiser.

    A subclass is one paper: its fields are the paper's hyperparameters, its class attributes say what it claims.

    Attributes:
        exact: whether the draws tend to the posterior as steps grow (tests hold it to the claim).
        needs: the kind of operator required.
        noises: if that is `LinearOperator`, the noise it takes.
        steps: rungs of the ladder.
        sigma_max, sigma_min: first and last noise level of the ladder; `None` takes the prior's own.
        rho: curvature of the ladder (Karras et al. 2022, eq. 5).
    """

    exact: ClassVar[bool]
    needs: ClassVar[type]
    noises: ClassVar[tuple[type[NoiseModel], ...]] = (Gaussian,)

    steps: int = 100
    sigma_max: float | None = None
    sigma_min: float | None = None
    rho: float = 7.0

    def __post_init__(self) -> None:
        self._limit(1, None, "steps")
        self._limit(0, None, "rho", "sigma_max", "sigma_min", open=True)

    def _limit(self, low: float, high: float | None, *names: str, open: bool = False) -> None:
        """Refuse hyperparameters outside `[low, high]` (`open`: above `low`), so that no step fails for them."""
        for name in names:
            value = getattr(self, name)
            if value is None or ((value > low if open else value >= low) and (high is None or value <= high)):
                continue
            wanted = f"{'above' if open else 'at least'} {low}" if high is None else f"from {low} to {high}"
            raise ValueError(f"{type(self).__name__}: {name} must be {wanted}, got {value}")

    def ends(self, prior: Denoiser) -> tuple[float, float]:
        """First and last level above 0 of the ladder, within the range of the prior.

        Raises:
            SamplerError: within that range the ladder would not go down.
        """
        top = prior.sigma_max if self.sigma_max is None else min(self.sigma_max, prior.sigma_max)
        bottom = prior.sigma_min if self.sigma_min is None else max(self.sigma_min, prior.sigma_min)
        if self.steps > 1 and not bottom < top:
            raise SamplerError(
                f"the ladder would go from sigma {top:g} up to {bottom:g}: choose sigma_max > sigma_min, both in "
                f"the prior's range {prior.sigma_min:g} to {prior.sigma_max:g}"
            )
        return top, bottom

    def ladder(self, prior: Denoiser) -> Tensor:
        """Decreasing noise levels that end in 0, `(steps + 1,)`, float64, within the range of the prior.

        Raises:
            SamplerError: within that range the ladder would not go down.
        """
        return descent(*self.ends(prior), self.steps, self.rho)

    def init(self, problem: Problem, prior: Denoiser, rng: Draws) -> Any:
        """The state at the top of the ladder: by default pure noise, `(B, *ishape)`."""
        return float(self.ladder(prior)[0]) * rng.normal(problem.operator.ishape, like=problem.y)

    @abstractmethod
    def step(self, x: Any, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Any:
        """The state one rung lower. Pure: everything it needs is in its arguments."""

    def signal(self, x: Any) -> Tensor:
        """The signal `(B, *ishape)` in a state; a sampler whose state is more than `x` says where it is."""
        return x

    def check(self, problem: Problem, prior: Denoiser) -> None:
        """Refuse, in words, a problem or a prior this sampler cannot serve.

        Raises:
            SamplerError: operator, noise or shape does not fit.
        """
        name, A = type(self).__name__, problem.operator
        if not isinstance(A, self.needs):
            raise SamplerError(
                f"{name} needs a {self.needs.__name__}, got {type(A).__name__}: choose a sampler that needs only a "
                "gradient, such as RED-diff or DPS"
            )
        if self.needs is LinearOperator and not isinstance(problem.noise, self.noises):
            raise SamplerError(f"{name} needs Gaussian noise, got {problem.noise!r}: choose RED-diff or DPS")
        if not prior.accepts(A.ishape):
            raise SamplerError(f"the prior takes signals of shape {prior.shape}, the operator has {A.ishape}")

    @final
    def __call__(self, problem: Problem, prior: Denoiser, rng: Draws, callback: Callback | None = None) -> Tensor:
        """Run the ladder: one draw per row of `rng`, `(B, *ishape)`. Gaussian noise is made white before.

        Raises:
            ValueError: `y` has neither one row nor as many as `rng`.
            SamplerError: the problem does not fit, or a step gave NaN or infinities (named with step and sigma).
        """
        problem = problem.white
        self.check(problem, prior)
        if len(problem.y) not in (1, len(rng)):
            raise ValueError(f"y has {len(problem.y)} rows, but there are random numbers for {len(rng)} draws")
        ladder = self.ladder(prior).tolist()
        with torch.no_grad():
            x = self._heeded(0, ladder, self.init, problem, prior, rng)
            for i, (sigma, sigma_next) in enumerate(pairwise(ladder)):
                x = self._heeded(i + 1, ladder, self.step, x, sigma, sigma_next, problem, prior, rng)
                signal = self.signal(x)
                if not bool(torch.isfinite(signal.sum())):
                    raise SamplerError(
                        f"{type(self).__name__} gave NaN or infinite values at step {i + 1} of {len(ladder) - 1} "
                        f"(sigma {sigma:.4g} -> {sigma_next:.4g}): the data, the noise level or a step size is off"
                    )
                if callback is not None:
                    callback(i + 1, len(ladder) - 1, sigma_next, signal)
        return self.signal(x)

    def _heeded(self, step: int, ladder: list[float], work: Callable[..., Any], *arguments: Any) -> Any:
        """What `work` gives; where a linear system in it cannot be solved, the step that asked is named."""
        try:
            return work(*arguments)
        except ConvergenceError as error:
            where = f"at step {step} of {len(ladder) - 1} (sigma {ladder[max(step - 1, 0)]:.4g})"
            raise SamplerError(f"{type(self).__name__} {where}: {error}") from error


def descent(top: float, bottom: float, steps: int, rho: float) -> Tensor:
    """`steps` levels from `top` to `bottom` and then 0, `(steps + 1,)`, float64 (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (top ** (1 / rho) + ramp * (bottom ** (1 / rho) - top ** (1 / rho))) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def differentiable(prior: Denoiser, x: Tensor, sigma: float, name: str) -> tuple[Tensor, Tensor]:
    """`x` and `D(x, sigma)` with the graph between them. Raises SamplerError where the prior gives no gradient."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        D = prior(x, sigma)
    if not D.requires_grad:
        raise SamplerError(
            f"{name} differentiates the denoiser, and this prior gives no gradient: choose a sampler that needs none, "
            "such as DiffPIR or RED-diff"
        )
    return x, D


def differentiable_data(A: Operator, x: Tensor, name: str) -> Tensor:
    """`A x` with the graph from `x`. Raises SamplerError where the operator gives no gradient."""
    with torch.enable_grad():
        z = A.forward(x)
    if not z.requires_grad:
        raise SamplerError(
            f"{name} differentiates the operator, and {type(A).__name__} gives no gradient: mend its forward"
        )
    return z
