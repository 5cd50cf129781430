"""deepinv's physics as our operators, our operators as its physics, and one of its algorithms on one of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

physics = pytest.importorskip("deepinv.physics")

from operators.base import Identity, LinearOperator, ShapeError  # noqa: E402
from operators.check import assert_laws  # noqa: E402
from operators.image import Blur, Downsample, Grayscale, Mask, SubsampledOrthogonal  # noqa: E402
from operators.interop import from_deepinv, noise_from_deepinv, noise_to_deepinv, to_deepinv  # noqa: E402
from operators.kernels import gaussian  # noqa: E402
from operators.noise import Gamma, Gaussian, NoiseModel, Poisson, PoissonGaussian  # noqa: E402
from operators.nonlinear import Clip  # noqa: E402
from operators.random import Draws, generator  # noqa: E402


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed))


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:deepinv")


def coils() -> Tensor:
    return torch.complex(uniform(1, 3, 8, 6), uniform(1, 3, 8, 6, seed=1))


THEIRS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "Denoising": (lambda: physics.Denoising(), (3, 7, 6)),
    "Inpainting": (lambda: physics.Inpainting((3, 7, 6), mask=(uniform(3, 7, 6) > 0.5).float()), (3, 7, 6)),
    "Demosaicing": (lambda: physics.Demosaicing(img_size=(3, 8, 6)), (3, 8, 6)),
    "Blur valid": (lambda: physics.Blur(filter=uniform(1, 1, 3, 4), padding="valid"), (2, 7, 9)),
    "Blur circular": (lambda: physics.Blur(filter=uniform(1, 1, 3, 3), padding="circular"), (2, 7, 9)),
    "BlurFFT": (lambda: physics.BlurFFT((2, 8, 6), filter=uniform(1, 1, 3, 3)), (2, 8, 6)),
    "Downsampling": (lambda: physics.Downsampling((3, 16, 8), "bicubic", factor=2), (3, 16, 8)),
    "DownsamplingMatlab": (lambda: physics.DownsamplingMatlab(factor=2), (1, 16, 16)),
    "Decolorize": (lambda: physics.Decolorize(), (3, 5, 6)),
    "MRI": (lambda: physics.MRI(mask=(uniform(1, 1, 8, 6) > 0.5).float(), img_size=(2, 8, 6)), (2, 8, 6)),
    "MultiCoilMRI": (
        lambda: physics.MultiCoilMRI((uniform(8, 6) > 0.5).float(), coil_maps=coils(), img_size=(2, 8, 6)),
        (2, 8, 6),
    ),
    "DynamicMRI": (
        lambda: physics.DynamicMRI((uniform(1, 2, 3, 8, 6) > 0.5).float(), img_size=(2, 3, 8, 6)),
        (2, 3, 8, 6),
    ),
    "Tomography": (lambda: physics.Tomography(angles=9, img_width=16), (1, 16, 16)),
    "CompressedSensing": (
        lambda: physics.CompressedSensing(20, (1, 6, 7), dtype=torch.float64, rng=torch.Generator().manual_seed(0)),
        (1, 6, 7),
    ),
    "SinglePixelCamera": (
        lambda: physics.SinglePixelCamera(m=30, img_size=(1, 8, 8), rng=torch.Generator().manual_seed(0)),
        (1, 8, 8),
    ),
    "HyperSpectralUnmixing": (lambda: physics.HyperSpectralUnmixing(M=uniform(3, 5)), (3, 6, 4)),
}

OURS: dict[str, LinearOperator] = {
    "identity": Identity((2, 3, 5)),
    "mask": Mask(uniform(7, 5) > 0.5, channels=3),
    "blur": Blur(gaussian(1.0), (1, 9, 10)),
    "valid blur": Blur(uniform(3, 4), (1, 9, 10), "valid"),
    "bicubic": Downsample((3, 8, 12), 2),
    "grayscale": Grayscale((3, 4, 5)),
    "dct": SubsampledOrthogonal((1, 5, 7)),
}


def ratio(forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """`<x, A'y> / <A x, y>`, of positive vectors so that neither is small by chance."""
    return float((x * adjoint(y)).double().sum() / (forward(x) * y).double().sum())


@pytest.mark.parametrize("name", THEIRS)
def test_from_deepinv_and_back(name):
    make, ishape = THEIRS[name]
    dtype = torch.float32 if name == "Tomography" else torch.float64  # Tomography knows single precision only
    its = make() if dtype == torch.float32 else make().double()
    A = from_deepinv(its, ishape)
    assert isinstance(A, LinearOperator)
    x, y = uniform(2, *ishape, seed=3).to(dtype), uniform(2, *A.oshape, seed=4).to(dtype)
    assert ratio(A, A.adjoint, x, y) == pytest.approx(1, abs=1e-6)
    again = to_deepinv(A)
    assert ratio(again.A, again.A_adjoint, x, y) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(again.A(x), its.A(x))
    solved = A.solve(x, 2.0, 1.0)
    residual = 2 * A.adjoint(A(solved)) + solved - x
    assert float(residual.norm() / x.norm()) < 1e-4
    assert A(x.float()).dtype == torch.float32, "the result follows its argument, whatever the physics computes in"


@pytest.mark.parametrize("name", ["Inpainting", "Blur valid", "BlurFFT", "Decolorize", "MRI"])
def test_from_deepinv_obeys_all_laws_in_double_precision(name):
    make, ishape = THEIRS[name]
    A = from_deepinv(make().double(), ishape)
    assert isinstance(A, LinearOperator)
    assert_laws(A)


@pytest.mark.parametrize("name", OURS)
def test_to_deepinv(name):
    A = OURS[name]
    theirs = to_deepinv(A, Gaussian(0.1))
    x, y = uniform(2, *A.ishape, seed=3), uniform(2, *A.oshape, seed=4)
    assert ratio(theirs.A, theirs.A_adjoint, x, y) == pytest.approx(1, abs=1e-6)
    assert float(theirs.adjointness_test(x.double())) < 1e-10
    torch.testing.assert_close(theirs.A_dagger(A(x)), A.pinv(A(x)))
    # The definition of their proximal operator, against their own iterative solver.
    own = physics.LinearPhysics.prox_l2(theirs, x, y, 3.0, max_iter=200, tol=1e-7)
    torch.testing.assert_close(theirs.prox_l2(x, y, torch.tensor([3.0])), own, rtol=1e-3, atol=1e-3)
    zero = theirs.prox_l2(None, y, 3.0)
    torch.testing.assert_close(zero, theirs.prox_l2(torch.zeros_like(x), y, 3.0))
    assert float((theirs(x) - A(x)).std()) == pytest.approx(0.1, rel=0.5)


@pytest.mark.parametrize("noise", [Gaussian(0.2), Poisson(0.1), Gamma(4.0), PoissonGaussian(0.1, 0.05)], ids=str)
def test_noise_there_and_back(noise: NoiseModel):
    theirs = noise_to_deepinv(noise)
    back = noise_from_deepinv(theirs)
    assert type(back) is type(noise)
    for field, value in vars(noise).items():
        assert getattr(back, field) == pytest.approx(value, rel=1e-6)
    z = torch.full((4, 20000), 0.7)
    a, b = theirs(z), noise.sample(z, Draws(0, range(4)))
    assert float(a.mean()) == pytest.approx(float(b.mean()), rel=0.01)
    assert float(a.std()) == pytest.approx(float(b.std()), rel=0.03)


def test_nonlinear_physics_both_ways():
    blind = from_deepinv(physics.Physics(A=lambda x, **_: x.clamp(0, 0.5)), (2, 3))
    assert not isinstance(blind, LinearOperator)
    x = uniform(2, 2, 3)
    assert torch.equal(blind(x), x.clamp(0, 0.5))
    assert torch.equal(to_deepinv(Clip((2, 3), 0.0, 0.5)).A(x), x.clamp(0, 0.5))


def test_refusals():
    with pytest.raises(TypeError, match="Physics is needed, got Identity"):
        from_deepinv(Identity((3,)), (3,))
    with pytest.raises(ShapeError, match="VStack"):
        from_deepinv(physics.Denoising().stack(physics.Denoising()), (1, 4, 4))
    with pytest.raises(ShapeError, match="two real channels"):
        from_deepinv(physics.LinearPhysics(A=lambda x, **_: torch.fft.fft(x)), (4,))
    with pytest.raises(TypeError, match="no counterpart of deepinv's ZeroNoise"):
        noise_from_deepinv(physics.ZeroNoise())
    with pytest.raises(ValueError, match="normalize"):
        noise_from_deepinv(physics.PoissonNoise(0.1, normalize=False))
    with pytest.raises(ValueError, match="same for all rows"):
        noise_from_deepinv(physics.GaussianNoise(torch.tensor([0.1, 0.2])))


def test_their_reconstruction_runs_on_our_operator():
    """Half-quadratic splitting with total variation restores a blurred photograph, through our `solve`."""
    from deepinv.optim import HQS, L2
    from deepinv.optim.prior import TVPrior
    from skimage.data import camera

    x = torch.from_numpy(camera()[150:214, 200:264] / 255.0).float()[None, None]
    A = Blur(gaussian(1.5), (1, 64, 64))
    problem = to_deepinv(A, Gaussian(0.01))
    y = A(x) + 0.01 * torch.randn(x.shape, generator=generator(0))
    solver = HQS(data_fidelity=L2(), prior=TVPrior(n_it_max=20), stepsize=50.0, lambda_reg=2e-3, max_iter=15)
    with torch.no_grad():
        restored = solver(y, problem)

    def psnr(z: Tensor) -> float:
        return float(-10 * (z - x).square().mean().log10())

    assert psnr(restored) > psnr(y) + 1.5
