"""Classical restoration with every weight chosen by the truth, picture by picture: an upper bound of what each can do.

scikit-image's biharmonic inpainting, total variation, Wiener and Richardson-Lucy; bicubic and Lanczos interpolation;
and total variation as the regulariser of the whole inverse problem, which scikit-image has for denoising only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import restoration
from tasks import psnr
from torch import Tensor

from operators import kernels
from operators.image import Mask
from restore.problem import Problem

Method = Callable[[Problem, Tensor], Tensor]
WEIGHTS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.14, 0.2)  # of scikit-image's TV
INVERSE_WEIGHTS = (0.06, 0.04, 0.025, 0.016, 0.01, 0.006, 0.004, 0.0025, 0.0015, 0.001, 0.0006)


def best(estimates: Iterable[Tensor], truth: Tensor) -> Tensor:
    """The estimate of highest PSNR."""
    return max(estimates, key=lambda estimate: psnr(estimate, truth))


def tv_denoised(estimate: Tensor, truth: Tensor) -> Tensor:
    """scikit-image's TV (Chambolle) of an estimate, or the estimate itself if that is better."""
    x = estimate[0].numpy()
    denoised = (torch.from_numpy(restoration.denoise_tv_chambolle(x, w, channel_axis=0))[None] for w in WEIGHTS)
    return best((estimate, *(d.to(estimate) for d in denoised)), truth)


def tv_inverse(problem: Problem, truth: Tensor) -> Tensor:
    """`argmin ||A x - y||^2 / 2 + w TV(x)`, TV isotropic over all channels, for a decreasing list of `w`.

    Chambolle and Pock 2011, algorithm 1, with `A.solve` as the proximal step; each `w` starts from the one before.
    """
    return best(_tv_path(problem), truth)


def _tv_path(problem: Problem, iterations: int = 60, tau: float = 0.35) -> Iterator[Tensor]:
    A, _ = problem.linear_gaussian
    back = A.adjoint(problem.y)
    x = bar = A.solve(back, 1.0, 1e-2)
    p = torch.zeros(2, *x.shape)
    for weight in INVERSE_WEIGHTS:
        for _ in range(iterations):
            p = p + _gradient(bar) / (8 * tau)
            p = p / (p.square().sum((0, 2), keepdim=True).sqrt() / weight).clamp(min=1)
            new = A.solve(back + (x + tau * _divergence(p)) / tau, 1.0, 1 / tau)
            x, bar = new, 2 * new - x
        yield x


def _gradient(x: Tensor) -> Tensor:
    down = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
    right = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
    return torch.stack([down, right])  # (2, B, C, H, W)


def _divergence(p: Tensor) -> Tensor:
    """Minus the transpose of `_gradient`."""
    down, right = p[0][..., :-1, :], p[1][..., :-1]
    return F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0)) + F.pad(right, (0, 1)) - F.pad(right, (1, 0))


def biharmonic(problem: Problem, truth: Tensor) -> Tensor:
    A = problem.operator
    assert isinstance(A, Mask)
    missing = A.adjoint(torch.ones_like(problem.y))[0, 0].numpy() == 0
    filled = restoration.inpaint_biharmonic(
        A.adjoint(problem.y)[0].numpy(), missing, split_into_regions=True, channel_axis=0
    )
    return torch.from_numpy(filled)[None].to(problem.y)


def biharmonic_tv(problem: Problem, truth: Tensor) -> Tensor:
    return tv_denoised(biharmonic(problem, truth), truth)


def blurred_tv(problem: Problem, truth: Tensor) -> Tensor:
    """TV of the blurred picture: noise goes, blur stays."""
    return tv_denoised(problem.y, truth)


def _channels(y: Tensor, restored: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(restored(c.numpy()), np.float32)) for c in y[0]])[None]


def wiener(problem: Problem, truth: Tensor) -> Tensor:
    """scikit-image's Wiener filter (Laplacian regulariser), which is circular as the blur is."""
    psf = kernels.gaussian(2.0).numpy()
    return best(
        (
            _channels(problem.y, lambda c, w=weight: restoration.wiener(c, psf, w, clip=False))
            for weight in np.geomspace(1e-3, 10, 13)
        ),
        truth,
    )


def richardson_lucy(problem: Problem, truth: Tensor) -> Tensor:
    """scikit-image's Richardson-Lucy on a picture continued circularly, since its own boundary is dark."""
    psf, margin = kernels.gaussian(2.0).float().numpy(), 24
    y = F.pad(problem.y.clamp(min=0), (margin,) * 4, "circular")

    def run(iterations: int) -> Tensor:
        full = _channels(y, lambda c: restoration.richardson_lucy(c, psf, num_iter=iterations, clip=False))
        return full[..., margin:-margin, margin:-margin]

    return best((run(n) for n in (3, 5, 8, 12, 18)), truth)


def _resized(problem: Problem, method: Image.Resampling) -> Tensor:
    H, W = problem.operator.ishape[-2:]
    return _channels(problem.y, lambda c: np.asarray(Image.fromarray(c).resize((W, H), method)))


def bicubic(problem: Problem, truth: Tensor) -> Tensor:
    return _resized(problem, Image.Resampling.BICUBIC)


def lanczos(problem: Problem, truth: Tensor) -> Tensor:
    return _resized(problem, Image.Resampling.LANCZOS)


def bicubic_tv(problem: Problem, truth: Tensor) -> Tensor:
    """TV of the enlarged picture or enlargement of the TV-denoised one, whichever is better."""
    small = torch.from_numpy(problem.y[0].numpy())
    first = (restoration.denoise_tv_chambolle(small.numpy(), w, channel_axis=0) for w in WEIGHTS)
    enlarged = (
        bicubic(Problem(torch.from_numpy(d)[None].to(problem.y), problem.operator, problem.noise), truth) for d in first
    )
    return best((tv_denoised(bicubic(problem, truth), truth), *enlarged), truth)


METHODS: dict[str, dict[str, Method]] = {
    "inpaint": {"biharmonic": biharmonic, "biharmonic, then TV": biharmonic_tv, "TV inpainting": tv_inverse},
    "deblur": {
        "TV of y": blurred_tv,
        "Wiener": wiener,
        "Richardson-Lucy": richardson_lucy,
        "TV deconvolution": tv_inverse,
    },
    "upscale": {
        "bicubic": bicubic,
        "Lanczos": lanczos,
        "bicubic and TV": bicubic_tv,
        "TV super-resolution": tv_inverse,
    },
}
