"""Scans off the grid, against direct sums."""

import sys

import pytest
import torch

from operators.base import ShapeError
from operators.check import assert_laws
from operators.linalg import dot
from operators.mri import FFT2, to_channels, to_complex
from operators.nufft import NUFFT, SenseNUFFT, density
from operators.random import generator


@pytest.fixture(autouse=True)
def finufft():
    return pytest.importorskip("finufft")


def points(n, seed=0):
    return torch.rand(n, 2, generator=generator(seed), dtype=torch.float64) - 0.5


def coil_maps(*shape, seed=0):
    maps = torch.randn(shape, generator=generator(seed), dtype=torch.complex128)
    maps[:, 0, :2] = 0
    return maps


def radial(spokes, n):
    angle = torch.pi * torch.arange(spokes).double()[:, None] / spokes
    r = (torch.arange(n) - n // 2).double() / n
    return torch.stack([(angle.sin() * r).flatten(), (angle.cos() * r).flatten()], 1)


def grid(H, W):
    y, x = torch.meshgrid(*((torch.arange(n).double() - n // 2) / n for n in (H, W)), indexing="ij")
    return torch.stack([y.flatten(), x.flatten()], 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NUFFT(points(23), (4, 5, 4)),
        lambda: NUFFT(points(12, 1), (2, 4, 5)),
        lambda: SenseNUFFT(points(30, 2), coil_maps(2, 5, 4)),
        lambda: SenseNUFFT(points(15, 3), coil_maps(3, 4, 5)),
    ],
)
def test_laws_and_gradients(make):
    A = make()
    assert_laws(A)
    x = torch.randn(2, *A.ishape, generator=generator(1), dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, *A.oshape, generator=generator(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(A, x) and torch.autograd.gradcheck(A.adjoint, y)
    (grad,) = torch.autograd.grad(A(x).square().sum(), x, create_graph=True)
    (twice,) = torch.autograd.grad((grad * x.detach()).sum(), x)
    torch.testing.assert_close(twice, 2 * A.normal(x.detach()))


@pytest.mark.parametrize("dtype, tol", [(torch.float64, 1e-10), (torch.float32, 3e-6)])
@pytest.mark.parametrize("size", [(30, 24), (21, 33)])
def test_it_is_the_direct_sum_and_its_adjoint(size, dtype, tol):
    k, (H, W) = points(150), size
    A = NUFFT(k, (4, H, W))
    p = torch.stack(torch.meshgrid(torch.arange(H) - H // 2, torch.arange(W) - W // 2, indexing="ij")).flatten(1)
    phase = -2 * torch.pi * k @ p.double()
    E = torch.polar(torch.full_like(phase, (H * W) ** -0.5), phase)
    x = torch.randn(2, 4, H, W, generator=generator(1), dtype=torch.float64)
    wanted = to_channels((to_complex(x).flatten(2) @ E.T)[..., None, :]).squeeze(-2)
    y = A(x.to(dtype))
    assert y.dtype == dtype
    assert float((y.double() - wanted).norm() / wanted.norm()) < tol
    back = to_complex(A.adjoint(y))
    wanted = to_complex(y.double()[..., None, :]).squeeze(-2) @ E.conj()
    assert float((back.flatten(2) - wanted).norm() / wanted.norm()) < tol
    assert abs(float(dot(y, y).sum() / dot(x.to(dtype), A.adjoint(y)).sum()) - 1) < 1e-6
    assert float((A.normal(x.to(dtype)) - A.adjoint(y)).norm() / A.adjoint(y).norm()) < tol


def test_on_the_grid_it_is_the_fast_transform_and_every_point_counts_one():
    x = torch.randn(1, 2, 8, 7, generator=generator(0), dtype=torch.float64)
    torch.testing.assert_close(NUFFT(grid(8, 7), (2, 8, 7))(x), FFT2((2, 8, 7))(x).flatten(2))
    torch.testing.assert_close(density(grid(8, 7), (8, 7)), torch.ones(56).double())


def test_gridding_with_the_density_gives_the_image_back():
    y, x = torch.meshgrid(torch.linspace(-3, 3, 48), torch.linspace(-3, 3, 40), indexing="ij")
    image = torch.exp(-(y**2) - x**2 + 1j * x).to(torch.complex128)
    for trajectory in (radial(80, 48), points(8000)):
        A, w = NUFFT(trajectory, (2, 48, 40)), density(trajectory, (48, 40))
        got = to_complex(A.adjoint(w * A(to_channels(image[None])[None])))[0, 0]
        assert float((got - image)[12:36, 10:30].norm() / image.norm()) < 0.01  # near the borders gridding is poor
    w = density(radial(80, 48), (48, 40)).view(80, 48)[0]
    assert float(w[24]) < 0.1 * float(w[4])  # the middle of the spokes is crowded


def test_the_preconditioner_saves_most_iterations(monkeypatch):
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 40), indexing="ij")
    maps = torch.stack([torch.exp(-((y - a) ** 2) - (x - b) ** 2 + 1j * (a * x - b * y)) for a, b in grid(3, 3) * 3])
    maps = maps / maps.abs().square().sum(0).sqrt() * (y**2 + x**2 < 0.8)
    A = SenseNUFFT(radial(40, 48), maps)
    b = A.adjoint(A(torch.randn(1, 2, 48, 40, generator=generator(0))))
    calls = []
    convolved = A.convolved
    monkeypatch.setattr(A, "convolved", lambda z: (calls.append(1), convolved(z))[1])
    counts = []
    for preconditioner in (A.preconditioner, lambda alpha, beta: lambda z: z):
        monkeypatch.setattr(A, "preconditioner", preconditioner)
        calls.clear()
        solved = A.solve(b, 30.0, 1.0)
        counts.append(len(calls))
        torch.testing.assert_close(30 * A.normal(solved) + solved, b, rtol=0, atol=1e-3 * float(b.abs().max()))
    assert counts[0] < 0.5 * counts[1], counts


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: NUFFT(points(5).T, (2, 4, 4)), ShapeError, r"\(points, 2\), y before x"),
        (lambda: NUFFT(points(5) * 6, (2, 4, 4)), ValueError, "divide by 2 pi"),
        (lambda: NUFFT(points(5) * torch.nan, (2, 4, 4)), ValueError, "nan"),
        (lambda: NUFFT(points(5), (3, 4, 4)), ShapeError, "complex images"),
        (lambda: SenseNUFFT(points(5), torch.ones(2, 4, 4)), TypeError, "complex"),
        (lambda: density(points(5) * 6, (4, 4)), ValueError, "cycles per pixel"),
    ],
)
def test_refusals_say_what_is_wrong(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_without_finufft_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "finufft", None)
    with pytest.raises(ImportError, match="pip install finufft"):
        NUFFT(points(3), (2, 4, 4))


def test_constants_survive_a_change_of_precision():
    A, x = SenseNUFFT(points(9), coil_maps(2, 4, 5)), torch.randn(1, 2, 4, 5)
    wanted = A(x), A.solve(x, 1.0, 1.0)
    A = A.to(torch.float32)
    torch.testing.assert_close((A(x), A.solve(x, 1.0, 1.0)), wanted)
