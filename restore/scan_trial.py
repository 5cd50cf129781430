"""Does the prior know such pictures? A trial on lines whose answer is known.

Part of the points that were measured are left out, a quick reconstruction of the others predicts them, and so does one
without a prior: the regularised solution, which fills in only what coils tell. A prior that predicts them no better
adds nothing that is true, whatever its draws look like. The trial says whether the prior helps, not whether it knows
the anatomy: it may well help with a knee that it has never seen, as edges are edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from operators.masks import centre_block
from operators.mri import sense, to_channels
from operators.noise import Gaussian
from operators.random import generator
from restore.core import restore
from restore.jobs import Tools
from restore.problem import Problem
from restore.scan_pose import CALIBRATION, Slice

SHARE = 0.2  # of what was measured outside of the centre
DRAWS, STEPS = 2, 16
# Precision of the white priors of the solution without a prior, in units of the brightness; the best of them counts.
PRECISIONS = (1.0, 4.0, 16.0, 64.0, 256.0)
# Less signal than this, in powers of the noise, cannot be told from none.
NOISE = 0.05
# So many standard errors worse than without a prior is worse.
WORSE = 2.0


@dataclass(frozen=True)
class Trial:
    """How a prediction of lines that were left out went.

    Attributes:
        missed: share of their signal (energy above that of the noise) that the prior did not predict.
        without: share that is not predicted without a prior.
        worse: whether the prior is worse than none by more than chance.
    """

    missed: float
    without: float
    worse: bool


def trial(posed: Slice, tools: Tools, seed: int) -> Trial | None:
    """The trial of one slice; `None` where it was measured off the grid, or what could be left out is noise.

    Raises:
        SamplerError: the sampler cannot do it.
    """
    if posed.used is None:
        return None
    out = left_out(posed.used, generator(seed))
    k, sigma = to_channels(torch.from_numpy(posed.measured)) / posed.scale, posed.noise / posed.scale
    z = k[None, :, torch.from_numpy(out)]
    signal = float(z.square().mean()) - sigma**2 if out.any() else 0.0
    if signal < NOISE * sigma**2:
        return None
    maps = None if posed.maps is None else torch.from_numpy(posed.maps)
    kept = torch.from_numpy(posed.used & ~out)
    A, B = sense(kept, maps), sense(torch.from_numpy(out), maps)
    y = k[None, :, kept]
    sampler = replace(tools.sampler, steps=min(STEPS, tools.sampler.steps))
    problem = Problem(y.to(tools.device), A.to(tools.device), Gaussian(sigma))
    x = restore(problem, tools.prior, sampler, num_samples=DRAWS, seed=seed).mean.cpu()
    A = A.cpu()
    mine = squares(z - B.forward(x[None]))
    others = [squares(z - B.forward(A.solve(A.adjoint(y), 1.0, p * sigma**2))) for p in PRECISIONS]
    plain = min(others, key=lambda e: float(e.mean()))
    missed, without = ((float(e.mean()) - sigma**2) / signal for e in (mine, plain))
    d = mine - plain
    return Trial(missed, without, bool(d.mean() > WORSE * d.std() / len(d) ** 0.5))


def squares(r: Tensor) -> Tensor:
    """Mean over the coils and both parts of the square of `(1, 2 N, M)`: `(M,)`."""
    return r[0].double().square().mean(0)


def left_out(used: np.ndarray, rng: torch.Generator) -> np.ndarray:
    """Some of the points that were used, outside of the centre: whole lines where whole lines are missing, `(y, x)`."""
    rows, columns = centre_block(torch.tensor(used), CALIBRATION)
    if not used.all() and (used == used[:, :1]).all():
        return used & _some(used[:, 0], rows, rng)[:, None]
    if not used.all() and (used == used[:1]).all():
        return used & _some(used[0], columns, rng)
    centre = np.zeros_like(used)
    centre[rows, columns] = True
    return used & ~centre & (torch.rand(used.shape, generator=rng).numpy() < SHARE)


def _some(lines: np.ndarray, centre: slice, rng: torch.Generator) -> np.ndarray:
    at = np.flatnonzero(lines)
    found = at[(at < centre.start) | (at >= centre.stop)]
    chosen = found[torch.randperm(len(found), generator=rng)[: max(2, round(SHARE * len(found)))].numpy()]
    return np.isin(np.arange(len(lines)), chosen)
