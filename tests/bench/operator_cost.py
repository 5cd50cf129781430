"""What operators cost: closed-form solves against deepinv's, forward and adjoint against plain torch.

    python tests/bench/operator_cost.py              # exit status 1 if a limit is broken

All in single precision on one thread, on 4 pictures of 3 x 256 x 256. The sides run in turns, in one process; times are
medians of processor time, and a ratio is the median of the ratios of the rounds. Plain torch is the fastest of the ways
tried to write the same mathematics by hand, and must give the same numbers.
"""

from __future__ import annotations

import copy
import functools
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
warnings.filterwarnings("ignore")

from operators import kernels  # noqa: E402
from operators.base import LinearOperator, Operator  # noqa: E402
from operators.image import Blur, Downsample, Grayscale, Mask, SubsampledOrthogonal  # noqa: E402
from operators.nonlinear import JPEG, Clip, Magnitude, Quantize  # noqa: E402
from operators.random import generator  # noqa: E402

SHAPE, BATCH, ROUNDS, GAMMA = (3, 256, 256), 4, 11, 25.0
FASTER, OVERHEAD, ACCURACY = 10.0, 1.5, 1e-5


def race(ours: Callable[[], object], *others: Callable[[], object]) -> tuple[float, float, float]:
    """Median times of ours and of the fastest of the others, in ms, and the median over the rounds of their ratio."""
    times: list[list[float]] = []
    for _ in range(ROUNDS + 1):
        times.append([])
        for side in (ours, *others):
            start = time.process_time()
            side()
            times[-1].append(1e3 * (time.process_time() - start))
    rounds = torch.tensor(times[1:])  # without the first, which warms up
    medians = rounds.median(0).values
    best = 1 + int(medians[1:].argmin())
    return float(medians[0]), float(medians[best]), float((rounds[:, 0] / rounds[:, best]).median())


def relative(error: Tensor, scale: Tensor) -> float:
    return float(error.double().norm() / scale.double().norm())


def solve_error(A: Callable, At: Callable, x: Tensor, z: Tensor, y: Tensor) -> float:
    """Residual of the normal equations `(gamma A'A + I) x = gamma A'y + z`, in float64."""
    x, b = x.double(), GAMMA * At(y.double()) + z.double()
    return relative(GAMMA * At(A(x)) + x - b, b)


def solves(x: Tensor) -> bool:
    """Closed forms against deepinv, each on its own operator: its 4x bicubic is a pixel off ours, at the same cost.

    Its proximal operator includes `A' y`, so the same is asked of ours. Where deepinv has a closed form of its own it
    is shown; the limit is for its conjugate gradients.
    """
    from deepinv.physics import Downsampling, DownsamplingMatlab

    print(f"\n{'bicubic downsampling':30}{'ours':>11}{'deepinv':>11}{'faster':>9}{'our error':>12}{'its error':>12}")
    good = True
    z = torch.randn(x.shape, generator=generator(1))
    for factor in (2, 4):
        A = Downsample(SHAPE, factor)
        y = A(x)
        ours_solve = functools.partial(lambda A, y: A.solve(torch.add(z, A.adjoint(y), alpha=GAMMA), GAMMA, 1.0), A, y)
        ours_pinv = functools.partial(A.pinv, y)
        for its, name in (
            (Downsampling(SHAPE, "bicubic", factor=factor), "circular"),
            (DownsamplingMatlab(factor=factor), "imresize"),
        ):
            exact, its_y = copy.deepcopy(its).double(), its.A(x)
            ways = {"solve": (ours_solve, functools.partial(its.prox_l2, z, its_y, GAMMA, use_fft=False))}
            if name == "circular":
                ways["solve by FFT"] = (ours_solve, functools.partial(its.prox_l2, z, its_y, GAMMA))
            ways["pinv"] = (ours_pinv, functools.partial(its.A_dagger, its_y))
            for what, (ours, theirs) in ways.items():
                a, b, ratio = race(ours, theirs)
                if what == "pinv":
                    errors = relative(A(ours().double()) - y, y), relative(exact.A(theirs().double()) - its_y, its_y)
                else:
                    errors = (
                        solve_error(A, A.adjoint, ours(), z, y),
                        solve_error(exact.A, exact.A_adjoint, theirs(), z, its_y),
                    )
                ok = 1 / ratio >= (1.0 if what == "solve by FFT" else FASTER) and errors[0] <= ACCURACY
                good &= ok
                print(
                    f"{f'{factor}x, its {name}, {what}':30}{a:9.2f}ms{b:9.1f}ms{1 / ratio:8.1f}x"
                    f"{errors[0]:12.1e}{errors[1]:12.1e}{'' if ok else '  !'}"
                )
    return good


def cases() -> dict[str, tuple[Operator, list[Callable], list[Callable]]]:
    """For each operator the ways to write `A x` and `A' y` by hand."""
    C, H, W = SHAPE
    out: dict[str, tuple[Operator, list[Callable], list[Callable]]] = {}

    kept = torch.rand(H, W, generator=generator(0)) > 0.7
    index = kept.flatten().nonzero().flatten()

    def scatter(y: Tensor) -> Tensor:
        x = torch.zeros(len(y), C, H * W)
        x[..., index] = y
        return x.view(-1, C, H, W)

    out["Mask"] = Mask(kept, channels=C), [lambda x: x[..., kept], lambda x: x.flatten(2)[..., index]], [scatter]

    def fft_blur(A: Blur) -> tuple[Callable, Callable]:
        K = torch.view_as_complex(A.core.get_buffer("otf").float()).contiguous()
        KH = K.conj().resolve_conj()
        return (
            lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * K, s=(H, W)),
            lambda y: torch.fft.irfft2(torch.fft.rfft2(y) * KH, s=(H, W)),
        )

    blur = Blur(kernels.motion(15, 30), SHAPE)
    there, back = fft_blur(blur)
    out["Blur circular, motion"] = blur, [there], [back]

    k = kernels.motion(15, 30)
    valid = Blur(k, SHAPE, "valid")
    rows, columns = valid.frame
    pad = (columns.start, W - columns.stop, rows.start, H - rows.stop)
    flipped = k.flip(0, 1).float()[None, None]
    out["Blur valid, motion"] = (
        valid,
        [lambda x: there(x)[..., rows, columns], lambda x: _depthwise(F.conv2d, x, flipped)],
        [lambda y: back(F.pad(y, pad)), lambda y: _depthwise(F.conv_transpose2d, y, flipped)],
    )

    g = kernels.gaussian(2.0).float()
    line = g.sum(0)
    out["Blur valid, Gaussian"] = (
        Blur(kernels.gaussian(2.0), SHAPE, "valid"),
        [
            lambda x: _depthwise(F.conv2d, _depthwise(F.conv2d, x, line[None, None, :, None]), line[None, None, None]),
            lambda x: _depthwise(F.conv2d, x, g[None, None]),
        ],
        [
            lambda y: _depthwise(
                F.conv_transpose2d, _depthwise(F.conv_transpose2d, y, line[None, None, :, None]), line[None, None, None]
            ),
        ],
    )

    for f in (2, 4):
        out[f"Downsample {f}x block"] = (
            Downsample(SHAPE, f, "block"),
            [lambda x, f=f: F.avg_pool2d(x, f), lambda x, f=f: x.view(-1, C, H // f, f, W // f, f).mean((3, 5))],
            [
                lambda y, f=f: (y / f**2).repeat_interleave(f, -1).repeat_interleave(f, -2),
                lambda y, f=f: F.interpolate(y / f**2, scale_factor=f),
            ],
        )
        taps = kernels.bicubic(f).sum(0).float()
        p = (len(taps) - f) // 2
        R = torch.zeros(H // f, H)
        for i in range(H // f):
            for t, w in enumerate(taps):
                R[i, (i * f - p + t) % H] += w

        def strided(x: Tensor, f: int = f, taps: Tensor = taps, p: int = p) -> Tensor:
            x = F.pad(x, (p, p, p, p), mode="circular")
            x = _depthwise(F.conv2d, x, taps[None, None, :, None], stride=(f, 1))
            return _depthwise(F.conv2d, x, taps[None, None, None], stride=(1, f))

        def folded(y: Tensor, f: int = f, taps: Tensor = taps, p: int = p) -> Tensor:
            x = _depthwise(F.conv_transpose2d, y, taps[None, None, :, None], stride=(f, 1))
            x = _depthwise(F.conv_transpose2d, x, taps[None, None, None], stride=(1, f))
            for dim in (-2, -1):
                before, middle, after = x.split((p, x.shape[dim] - 2 * p, p), dim)
                x = middle.clone()
                x.narrow(dim, 0, p).add_(after)
                x.narrow(dim, x.shape[dim] - p, p).add_(before)
            return x

        out[f"Downsample {f}x bicubic"] = (
            Downsample(SHAPE, f),
            [lambda x, R=R: R @ x @ R.T, strided],
            [lambda y, R=R: R.T @ y @ R, folded],
        )

    k = kernels.motion(15, 30)
    down = Downsample(SHAPE, 2, k)
    K = torch.view_as_complex(down.core.get_buffer("otf").float()).contiguous()
    KH = K.conj().resolve_conj()

    def zeros_between(y: Tensor) -> Tensor:
        x = torch.zeros(len(y), C, H, W)
        x[..., ::2, ::2] = y
        return torch.fft.irfft2(torch.fft.rfft2(x) * KH, s=(H, W))

    out["Downsample 2x, motion"] = (
        down,
        [lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * K, s=(H, W))[..., ::2, ::2]],
        [zeros_between],
    )

    w = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    out["Grayscale"] = (
        Grayscale(SHAPE),
        [
            lambda x: (x * w).sum(1, keepdim=True),
            lambda x: 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:],
            lambda x: F.conv2d(x, w),
        ],
        [lambda y: y * w],
    )

    for transform in ("dct", "hadamard"):
        A = SubsampledOrthogonal(SHAPE, transform, fraction=0.25)
        rows_, chosen = SubsampledOrthogonal((1, 1, W), transform, fraction=1.0), A.indices
        T = rows_(torch.eye(W)[:, None, None])[:, 0].T.contiguous()

        def synthesis(y: Tensor, T: Tensor = T, chosen: Tensor = chosen) -> Tensor:
            z = torch.zeros(len(y), C, H * W)
            z[..., chosen] = y
            return T.T @ z.view(-1, C, H, W) @ T

        out[f"SubsampledOrthogonal {transform}"] = (
            A,
            [lambda x, T=T, chosen=chosen: (T @ x @ T.T).flatten(2)[..., chosen]],
            [synthesis],
        )

    from kornia.enhance import jpeg_codec_differentiable

    out["Clip"] = Clip(SHAPE), [lambda x: x.clamp(0, 1)], []
    out["Quantize"] = Quantize(SHAPE), [lambda x: (x.clamp(0, 1) * 255).round() / 255], []
    out["JPEG"] = JPEG(SHAPE), [lambda x: jpeg_codec_differentiable(x, torch.tensor([30.0]))], []
    out["Magnitude"] = Magnitude(SHAPE), [lambda x: torch.fft.fft2(x, s=(2 * H, 2 * W), norm="ortho").abs()], []
    return out


def _depthwise(convolve: Callable, x: Tensor, weight: Tensor, **kwargs: object) -> Tensor:
    n = x.shape[0] * x.shape[1]
    y = convolve(x.flatten(0, 1)[None], weight.expand(n, -1, -1, -1), groups=n, **kwargs)
    return y.unflatten(1, x.shape[:2])[0]


def against(ways: list[Callable], argument: Tensor, ours: Callable) -> tuple[str, bool]:
    """One cell of the table, after checking that all ways agree."""
    wanted = ours(argument)
    for way in ways:
        torch.testing.assert_close(way(argument), wanted, rtol=1e-3, atol=1e-4)
    mine, best, ratio = race(lambda: ours(argument), *(lambda way=way: way(argument) for way in ways))
    return f"{mine:9.2f}ms{best:9.2f}ms{ratio:8.2f}", ratio <= OVERHEAD


def overheads(x: Tensor) -> bool:
    rest = f"{'plain':>11}{'ratio':>8}"
    print(f"{'against plain torch':30}{'forward':>11}{rest}{'adjoint':>11}{rest}")
    good = True
    for name, (A, forwards, adjoints) in cases().items():
        cells = [against(forwards, x, A)]
        if isinstance(A, LinearOperator):
            cells.append(against(adjoints, A(x), A.adjoint))
        ok = all(fine for _, fine in cells)
        good &= ok
        print(f"{name:30}{''.join(cell for cell, _ in cells)}{'' if ok else '  !'}")
    return good


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        picture = torch.rand(BATCH, *SHAPE, generator=generator(0))
        fine = [overheads(picture), solves(picture)]
    sys.exit(0 if all(fine) else 1)
