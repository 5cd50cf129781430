"""What the operators of MRI cost and how far they agree with others, as ratios.

    python tests/bench/mri_operators.py [full.cfl]     # exit status 1 if a limit is broken

One thread. `solve` and the Toeplitz form on 8 coils of 256 x 256 in single precision; ESPIRiT against SigPy's on the
given k-space (BART, one slice), else on a phantom. Processor time, medians of rounds, the sides in turns.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import operator_cost
from test_mri import birdcage, projection_error, scan
from test_nufft import radial

from operators import masks, mri
from operators.espirit import espirit
from operators.linalg import dot
from operators.nufft import SenseNUFFT
from operators.random import generator

N, SIZE, ALPHA = 8, 256, 100.0


def race(ours: Callable[[], object], theirs: Callable[[], object]) -> float:
    return operator_cost.race(ours, theirs)[2]


def by_hand(S: Tensor, mask: Tensor, b: Tensor, iterations: int) -> Tensor:
    """Conjugate gradients on `(ALPHA A'A + I) x = b` as one writes them down."""
    mask = torch.fft.ifftshift(mask)

    def matvec(v: Tensor) -> Tensor:
        return ALPHA * (S.conj() * torch.fft.ifft2(mask * torch.fft.fft2(S * v))).sum(0) + v

    x, r = torch.zeros_like(b), b.clone()
    p, rr = r.clone(), torch.vdot(r.flatten(), r.flatten()).real
    for _ in range(iterations):
        q = matvec(p)
        step = rr / torch.vdot(p.flatten(), q.flatten()).real
        x, r = x + step * p, r - step * q
        rr, before = torch.vdot(r.flatten(), r.flatten()).real, rr
        p = r + rr / before * p
    return x


def iterations_of(A: mri.Sense, b: Tensor) -> int:
    calls, convolved = [], A.convolved
    A.convolved = lambda z: (calls.append(1), convolved(z))[1]  # type: ignore[method-assign]
    A.solve(b, ALPHA, 1.0)
    del A.convolved
    return len(calls)


def row(what: str, value: float, limit: float, *, least: bool = False) -> bool:
    good = value >= limit if least else value <= limit
    print(f"{what:72}{value:10.2g}   {'at least' if least else 'at most'} {limit:g}{'' if good else '  !'}")
    return good


def solves(S: Tensor) -> bool:
    image = torch.randn(1, 2, SIZE, SIZE, generator=generator(0))
    good = True
    for name, mask in (
        ("points, R = 4", masks.poisson_disc((SIZE, SIZE), 4)),
        ("lines, R = 4", masks.random_lines((SIZE, SIZE), 4)),
    ):
        by_cg, A = mri.Sense(mask, S), mri.sense(mask, S)
        b = by_cg.normal(image)
        n = iterations_of(by_cg, b)
        hand = lambda mask=mask, b=b, n=n: by_hand(S, mask, mri.to_complex(b)[0, 0], n)  # noqa: E731
        error = (mri.to_complex(A.solve(b, ALPHA, 1.0))[0, 0] - hand()).norm() / hand().norm()
        good &= row(f"solve, {name}: difference from {n} iterations by hand", float(error), 1e-3)
        for what, operator in (("conjugate gradients", by_cg), ("as `sense` makes it", A)):
            ours = functools.partial(operator.solve, b, ALPHA, 1.0)
            good &= row(f"    {what}, time / the same by hand", race(ours, hand), 1.3)
    return good


def toeplitz(S: Tensor) -> bool:
    A = SenseNUFFT(radial(402, 512), S)
    x = torch.randn(1, 2, SIZE, SIZE, generator=generator(0))
    y = A(x)
    back = A.adjoint(y)
    good = row("NUFFT, 402 spokes of 512: |<Ax, y> / <x, A'y> - 1|", abs(float(dot(y, y) / dot(x, back)) - 1), 1e-6)
    good &= row("    Toeplitz form, difference from A'A", float((A.normal(x) - back).norm() / back.norm()), 1e-5)
    speed = 1 / race(lambda: A.normal(x), lambda: A.adjoint(A(x)))
    good &= row("    Toeplitz form, times as fast as A'A", speed, 3, least=True)
    speed = 1 / race(lambda: A.normal(x), _plain(A, S, x))
    return good & row("    Toeplitz form, times as fast as A'A by finufft in single precision", speed, 3, least=True)


def _plain(A: SenseNUFFT, S: Tensor, x: Tensor) -> Callable[[], object]:
    """`A'A` as one writes it with finufft, to 1e-5 in single precision."""
    import finufft

    ky, kx = (2 * torch.pi * A.nufft.trajectory).T.float().contiguous().numpy()
    options = {"eps": 1e-5, "nthreads": 1, "showwarn": 0}

    def normal() -> Tensor:
        z = (S * mri.to_complex(x)[0]).numpy()
        y = finufft.nufft2d2(ky, kx, z, isign=-1, **options)
        back = finufft.nufft2d1(ky, kx, y, n_modes=(SIZE, SIZE), isign=1, **options)
        return (S.conj() * torch.from_numpy(back)).sum(0) / SIZE**2

    return normal


def maps(kspace: Tensor) -> bool:
    from sigpy.mri.app import EspiritCalib

    theirs = lambda: EspiritCalib(kspace.numpy(), 24, 0.02, 6, 0.95, show_pbar=False).run()  # noqa: E731
    error, seen = projection_error(espirit(kspace), torch.from_numpy(theirs()))
    size = " x ".join(map(str, kspace.shape))
    good = row(f"ESPIRiT, {size}: projection error against SigPy's", error, 1e-3)
    good &= row("    share of its pixels that ours have", seen, 0.99, least=True)
    return good & row("    time / SigPy's", race(lambda: espirit(kspace), theirs), 1.0)


def read_cfl(path: Path) -> Tensor:
    """`(N, H, W)` of one slice."""
    shape = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    _, H, W, coils = shape[:4]
    return torch.from_numpy(np.fromfile(path, np.complex64).reshape(coils, W, H)).transpose(1, 2).contiguous()


if __name__ == "__main__":
    torch.set_num_threads(1)
    operator_cost.ROUNDS = 5
    S = birdcage(N, SIZE, SIZE)
    kspace = read_cfl(Path(sys.argv[1])) if len(sys.argv) > 1 else scan(N, SIZE, SIZE)[0]
    with torch.no_grad():
        fine = [solves(S), toeplitz(S), maps(kspace)]
    sys.exit(0 if all(fine) else 1)
