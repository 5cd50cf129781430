"""deepinv's posterior samplers on the exactness problems: same prior, data and operators, its own defaults.

The operators are deepinv's own where it has them with an SVD (inpainting, circular blur), since DDRM and PiGDM ask for
one; block averages are built from an SVD by its `DecomposablePhysics`. Pictures are in `[0, 1]` with noise in the same
units, as deepinv documents them; it rescales to `[-1, 1]` itself. DDRM, DiffPIR and DPS are classes with defaults.
PiGDM and moment matching are data terms of its `PosteriorDiffusion`: with the SDE, solver and steps of deepinv's own
example on them (variance exploding, alpha 0.25, Euler, 100 steps, weight 1) and, at as many calls, with the SDE and
solver that are the defaults of its DPS ("VP").
"""

from __future__ import annotations

import time
from collections.abc import Callable

import deepinv
import torch
from torch import Tensor

from operators.image import Blur, Mask
from operators.linalg import dense
from restore.core import Restoration
from restore.priors.base import Denoiser, per_row
from restore.problem import Problem

S = deepinv.sampling
Rival = Callable[["Counted", "Physics", Tensor, torch.Generator], Tensor]
Physics = deepinv.physics.DecomposablePhysics


class Counted(deepinv.models.Denoiser):
    """A prior as deepinv's denoiser that counts rows: calls forward, and products with the Jacobian."""

    def __init__(self, prior: Denoiser):
        super().__init__()
        self.prior, self.calls, self.products = prior, 0, 0

    def forward(self, x: Tensor, sigma: Tensor | float, **_: object) -> Tensor:
        self.calls += len(x)
        return _Noted.apply(self.prior(x, per_row(sigma, x).reshape(-1)), self)


class _Noted(torch.autograd.Function):
    """The identity; notes each gradient that passes."""

    @staticmethod
    def forward(x: Tensor, counter: Counted) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.counter = inputs[1]

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
        ctx.counter.products += len(g)
        return g, None


def physics_of(problem: Problem) -> tuple[Physics, Tensor]:
    """The operator and the noise as deepinv's, and the data as it wants them, `(1, ...)`."""
    A, sigma = problem.linear_gaussian
    noise, y = deepinv.physics.GaussianNoise(sigma), problem.y
    if isinstance(A, Mask):  # deepinv's keeps zeros where nothing was measured
        kept = A.adjoint(torch.ones_like(y))[0]
        return deepinv.physics.Inpainting(A.ishape, mask=kept, noise_model=noise), A.adjoint(y)
    if isinstance(A, Blur):
        # What one pixel becomes, as large as the picture: deepinv takes the middle for the origin.
        physics = deepinv.physics.BlurFFT(A.ishape, filter=A(delta(A.ishape)), noise_model=noise)
        return physics.double(), y
    U, s, Vt = torch.linalg.svd(dense(A, A.ishape))
    n, m = Vt.shape[0], len(s)

    def transform(M: Tensor, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        return lambda v: (v.flatten(1) @ M.to(v).T).reshape(-1, *shape)

    physics = Physics(
        U=transform(torch.nn.functional.pad(U, (0, n - m)), A.oshape),
        U_adjoint=transform(torch.nn.functional.pad(U.T, (0, 0, 0, n - m)), (n,)),
        V=transform(Vt.T, A.ishape),
        V_adjoint=transform(Vt, (n,)),
        mask=torch.nn.functional.pad(s, (0, n - m))[None],
        noise_model=noise,
    )
    return physics, y


def delta(shape: tuple[int, ...]) -> Tensor:
    """One pixel of one, in the middle, `(1, C, H, W)`."""
    x = torch.zeros(1, *shape, dtype=torch.float64)
    x[..., shape[-2] // 2, shape[-1] // 2] = 1
    return x


def ddrm(model: Counted, physics: Physics, y: Tensor, g: torch.Generator) -> Tensor:
    return S.DDRM(model)(y, physics)


def diffpir(model: Counted, physics: Physics, y: Tensor, g: torch.Generator) -> Tensor:
    sampler = S.DiffPIR(model, deepinv.optim.data_fidelity.L2(), sigma=float(physics.noise_model.sigma))
    return sampler(y, physics)


def dps(model: Counted, physics: Physics, y: Tensor, g: torch.Generator) -> Tensor:
    shape = physics.A_adjoint(y).shape
    return S.DPS(model, rng=g)(y.float(), physics.float(), x_init=shape)


def guided(term: type, example: bool) -> Rival:
    """One of its data terms, as in deepinv's example or with the SDE and solver of its DPS."""

    def sample(model: Counted, physics: Physics, y: Tensor, g: torch.Generator) -> Tensor:
        times = torch.linspace(1, 0.001 if example else 0, 100, dtype=torch.float64)
        sde = S.VarianceExplodingDiffusion(alpha=0.25) if example else S.VariancePreservingDiffusion(alpha=1.0)
        solver = (S.EulerSolver if example else S.DDPMSolver)(timesteps=times, rng=g)
        sampler = S.PosteriorDiffusion(data_fidelity=term(), denoiser=model, sde=sde, solver=solver)
        shape = physics.A_adjoint(y).shape
        return sampler(y.float(), physics.float(), x_init=shape)

    return sample


RIVALS: dict[str, Rival] = {
    "deepinv DDRM": ddrm,
    "deepinv DiffPIR": diffpir,
    "deepinv DPS": dps,
    "deepinv PiGDM": guided(S.PiGDMDataFidelity, example=True),
    "deepinv PiGDM, VP": guided(S.PiGDMDataFidelity, example=False),
    "deepinv moment matching": guided(S.MomentMatchingDataFidelity, example=True),
    "deepinv moment matching, VP": guided(S.MomentMatchingDataFidelity, example=False),
}


def draw(name: str, problem: Problem, prior: Denoiser, draws: int, seed: int = 0) -> Restoration:
    """As many draws, in one batch, with what they cost."""
    model, (physics, y) = Counted(prior), physics_of(problem)
    torch.manual_seed(seed)  # some draw from torch's global generator
    start = time.perf_counter()
    with torch.no_grad():
        x = RIVALS[name](model, physics, y.expand(draws, *y.shape[1:]).clone(), torch.Generator().manual_seed(seed))
    seconds = time.perf_counter() - start
    return Restoration(x.double(), problem, model.calls / draws, model.products / draws, seconds, seed)
