"""Every public operator against its dense matrix in float64; a public operator without a case here fails the suite."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import operators
from operators import kernels
from operators.base import Adjoint, Identity, LinearOperator, Operator, ShapeError
from operators.check import LawError, assert_adjoint, assert_laws, assert_linear, assert_pinv, assert_solve, assert_svd
from operators.compose import Chain, HStack, VStack, compose
from operators.diagonal import Diagonal
from operators.filters import CircularFilter, Separable
from operators.fourier import hartley
from operators.image import Blur, Downsample, Grayscale, Mask, SubsampledOrthogonal
from operators.linalg import SVD, ConvergenceError, cg
from operators.mri import FFT2, Coils, sense
from operators.nonlinear import JPEG, Clip, Magnitude, Quantize
from operators.random import generator
from operators.speech import Gap, Lowpass, Resample, Reverb
from operators.stft import ISTFT, STFT, Compress
from operators.valid import FullFilter, ValidFilter


def kernel(*shape: int, seed: int = 0) -> Tensor:
    """Without any symmetry, and so well conditioned that even iterative pseudo-inverses are accurate."""
    k = 0.1 * torch.rand(shape, generator=generator(seed), dtype=torch.float64)
    k[shape[0] // 2, shape[1] // 3] += 1
    return k / k.sum()


def mask(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed)) > 0.4


class Dense(LinearOperator):
    """A matrix with nothing known about it: the defaults of the base class."""

    def __init__(self, M: Tensor):
        super().__init__((M.shape[1],), (M.shape[0],))
        self.M = M

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.M.T.to(x)


def coil_maps(*shape: int, seed: int = 0) -> Tensor:
    """Of no smoothness, and zero in a corner: outside the head."""
    maps = torch.randn(shape, generator=generator(seed), dtype=torch.complex128)
    maps[:, 0, :2] = 0
    return maps


def lines(n: int) -> Tensor:
    return torch.arange(n) % 3 != 0


class Rotation(LinearOperator):
    """Twice an orthogonal matrix, on pictures."""

    gram = 4.0

    def __init__(self, ishape: tuple[int, ...]):
        super().__init__(ishape, ishape)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * hartley(x).roll(1, -1)


def matrix(m: int, n: int) -> Tensor:
    return torch.randn(m, n, generator=generator(m, n), dtype=torch.float64)


LINEAR: dict[str, LinearOperator] = {
    "identity": Identity((2, 3, 5)),
    "adjoint of a mask": Mask(mask(5, 4)).H,
    "adjoint of grayscale": Grayscale((3, 2, 3)).H,
    "adjoint of bicubic": Downsample((1, 6, 4), 2).H,
    "adjoint of a matrix": Adjoint(Dense(matrix(4, 6))),
    "mask shared by channels": Mask(mask(5, 7), channels=3),
    "mask of everything": Mask(mask(3, 5, 4)),
    "mask that keeps all": Mask(torch.ones(4, 3, dtype=torch.bool), channels=1),
    "blur 3x4": Blur(kernel(3, 4), (3, 7, 6)),
    "blur 4x3": Blur(kernel(4, 3), (1, 6, 7)),
    "blur with a kernel as large as the picture": Blur(kernel(5, 4), (1, 5, 4)),
    "blur with zeros in its spectrum": Blur(torch.ones(2, 2) / 4, (1, 6, 8)),
    "valid blur 3x2": Blur(kernel(3, 2), (1, 7, 6), "valid"),
    "valid blur 2x5": Blur(kernel(2, 5), (3, 6, 8), "valid"),
    "valid separable blur": Blur(kernel(3, 1) * kernel(1, 4), (3, 7, 6), "valid"),
    "valid blur to one pixel": Blur(kernel(4, 3), (1, 4, 3), "valid"),
    "block 3": Downsample((1, 6, 9), 3, "block"),
    "block 2": Downsample((3, 4, 6), 2, "block"),
    "bicubic 2": Downsample((3, 8, 12), 2),
    "bicubic 3": Downsample((1, 9, 15), 3),
    "bicubic 4, kernel wraps around": Downsample((1, 8, 12), 4),
    "bicubic 1": Downsample((1, 4, 5), 1),
    "own kernel, decimated 2": Downsample((3, 6, 8), 2, kernel(3, 4)),
    "own kernel, decimated 3": Downsample((1, 9, 6), 3, kernel(2, 5)),
    "own separable kernel with zeros": Downsample((1, 8, 4), 2, torch.ones(4, 4) / 16),
    "grayscale": Grayscale((3, 4, 5)),
    "grayscale of two": Grayscale((2, 3, 3), (1.0, -0.5)),
    "dct odd": SubsampledOrthogonal((1, 5, 7)),
    "dct even": SubsampledOrthogonal((3, 4, 6), fraction=0.3, seed=1),
    "dct complete": SubsampledOrthogonal((1, 5, 4), fraction=1.0),
    "hadamard": SubsampledOrthogonal((3, 8, 4), "hadamard"),
    "hadamard, given rows": SubsampledOrthogonal((1, 2, 16), "hadamard", indices=torch.tensor([0, 7, 31])),
    "circular filter": CircularFilter(kernel(5, 2), (2, 4, 6), 2),
    "separable, any matrices": Separable(matrix(4, 6), matrix(5, 3), (2,)),
    "wide matrix": Dense(matrix(4, 6)),
    "tall matrix": Dense(matrix(6, 4)),
    "matrix of low rank": Dense(matrix(5, 2) @ matrix(2, 6)),
    "mask of a blur": Mask(mask(6, 5), channels=1) @ Blur(kernel(3, 3), (1, 6, 5)),
    "mask of a transform": Mask(mask(1, 20)) @ SubsampledOrthogonal((1, 4, 5), fraction=1.0),
    "bicubic of a rotation": Downsample((2, 6, 4), 2) @ Rotation((2, 6, 4)),
    "rotation of a blur": Rotation((1, 5, 4)) @ Blur(kernel(2, 3), (1, 5, 4)),
    "rotation of bicubic of a rotation": Rotation((1, 3, 2)) @ Downsample((1, 6, 4), 2) @ Rotation((1, 6, 4)),
    "gray of bicubic": Grayscale((3, 3, 2)) @ Downsample((3, 6, 4), 2),
    "vstack along channels": VStack(Blur(kernel(3, 3), (3, 4, 5)), Grayscale((3, 4, 5))),
    "vstack flattened": VStack(Mask(mask(4, 6), channels=1), Downsample((1, 4, 6), 2)),
    "vstack with rotations": VStack(Rotation((1, 5, 4)), Blur(torch.ones(2, 2) / 4, (1, 5, 4)), Identity((1, 5, 4))),
    "vstack of rotations": VStack(Rotation((1, 3, 4)), Identity((1, 3, 4))),
    "vstack of one": VStack(Downsample((1, 4, 6), 2)),
    "fft2": FFT2((4, 5, 6)),
    "coils": Coils(coil_maps(3, 4, 5)),
    "one coil": sense(mask(5, 6)),
    "one coil with a map": sense(mask(4, 5, seed=1), coil_maps(1, 4, 5)),
    "sense, points": sense(mask(5, 6), coil_maps(3, 5, 6)),
    "sense, lines along x": sense(lines(6)[:, None].expand(6, 5), coil_maps(3, 6, 5)),
    "sense, lines along y": sense(lines(7).expand(4, 7), coil_maps(2, 4, 7)),
    "sense, all": sense(torch.ones(4, 5, dtype=torch.bool), coil_maps(2, 4, 5)),
    "sense of a rotation": sense(lines(4).expand(3, 4), coil_maps(2, 3, 4)) @ Rotation((2, 3, 4)),
    "hstack of tight frames": HStack(Downsample((1, 4, 6), 2, "block"), Identity((1, 2, 3))),
    "hstack with noise": HStack(Blur(kernel(3, 3), (3, 4, 5)), Identity((3, 4, 5))),
    "hstack with two hard parts": HStack(Downsample((1, 6, 4), 2), Blur(kernel(2, 2), (1, 3, 2))),
    "hstack that cannot give all data": HStack(Dense(matrix(6, 2)), Dense(matrix(6, 3))),
    "hstack of one": HStack(Blur(torch.ones(2, 2) / 4, (1, 4, 5))),
    "diagonal": Diagonal(matrix(4, 5)[None] * mask(1, 4, 5)),
    "stft": STFT(23, 8, 2),
    "stft, own odd window, odd hop": STFT(11, 0.1 + torch.rand(7, generator=generator(1)), 3),
    "stft of one sample": STFT(1, 6, 3),
    "istft": ISTFT(23, 8, 2),
    "istft, hop not a divisor": ISTFT(17, 10, 4),
    "gap of samples": Gap((1, 20), [(3, 7), (6, 9), (19, 20)]),
    "gap of frames": Gap((2, 3, 7), [(2, 4)]),
    "gap of istft": Gap((1, 18), [(5, 9)]) @ ISTFT(18, 8, 4),
    "low-pass": Lowpass(40, 0.4, 9),
    "low-pass of istft": Lowpass(18, 0.5, 7) @ ISTFT(18, 8, 4),
    "resample 2": Resample(30, 2, zeros=2),
    "resample 3": Resample(36, 3, zeros=2),
    "resample of istft": Resample(24, 2, zeros=2) @ ISTFT(24, 6, 2),
    "stft of resample": STFT(15, 6, 3) @ Resample(30, 2, zeros=2),
    "stft of istft": STFT(12, 4, 2) @ ISTFT(12, 6, 3),
    "reverb in full": Reverb(kernel(1, 5)[0], 12),
    "reverb longer than the speech": Reverb(kernel(1, 9)[0], 4),
    "reverb without tail": Reverb(torch.tensor([0.7]), 6),
    "valid reverb": Reverb(kernel(1, 5)[0], 12, "valid"),
    "full filter of pictures": FullFilter(kernel(3, 4), (2, 5, 4)),
    "white noise from coloured": Diagonal(matrix(2, 9).abs().reshape(1, 18)) @ ISTFT(18, 8, 4),
    "weighted gap of istft": Diagonal(matrix(1, 14).abs()) @ Gap((1, 18), [(5, 9)]) @ ISTFT(18, 8, 4),
}

NONLINEAR: dict[str, Operator] = {
    "clip": Clip((2, 5, 4)),
    "quantize": Quantize((3, 4, 5), bits=3),
    "jpeg colour": JPEG((3, 20, 33), quality=40),
    "jpeg grey": JPEG((1, 16, 17), quality=90),
    "magnitude": Magnitude((2, 5, 4)),
    "magnitude of odd oversampling": Magnitude((1, 5, 3), oversampling=1.5),
    "compress": Compress((2, 5, 4)),
    "expand": Compress((2, 5, 4)).inverse,
    "samples from compressed frames": ISTFT(9, 4, 2) @ Compress((2, 3, 6)).inverse,
    "chain": Clip((1, 2, 3)) @ Downsample((1, 4, 6), 2),
}


def public_operators() -> set[type[Operator]]:
    """Every concrete operator class defined in a module of `operators` under a public name.

    Those of `operators.interop` and, as finufft is optional, `operators.nufft` are held to the laws in
    `tests/test_interop.py` and `tests/test_nufft.py`.
    """
    found = set()
    elsewhere = {"operators.interop", "operators.nufft"}
    modules = {info.name for info in pkgutil.walk_packages(operators.__path__, "operators.")} - elsewhere
    for module in modules:
        for name, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass):
            if issubclass(cls, Operator) and cls.__module__ == module and not name.startswith("_"):
                found.add(cls)
    return {cls for cls in found if not inspect.isabstract(cls)}


def test_every_public_operator_has_a_case():
    cases = {type(m) for case in (*LINEAR.values(), *NONLINEAR.values()) for m in case.modules()}
    missing = {cls.__qualname__ for cls in public_operators()} - {cls.__qualname__ for cls in cases}
    assert len(public_operators()) >= 18, "the search for operators finds too few"
    assert not missing, f"no case in the table of tests/test_operators.py for {sorted(missing)}"


@pytest.mark.parametrize("name", LINEAR)
def test_laws(name):
    assert_laws(LINEAR[name])


@pytest.mark.parametrize("name", LINEAR)
def test_single_precision_gives_single_precision(name):
    A = LINEAR[name]
    g = generator(1)
    x, y = (torch.randn(2, *s, generator=g, dtype=torch.float64) for s in (A.ishape, A.oshape))
    for what, f, v in [
        ("forward", A, x),
        ("adjoint", A.adjoint, y),
        ("solve", lambda b: A.solve(b, 2.0, 0.5), x),
        ("pinv", A.pinv, A(x)),
    ]:
        got = f(v.float())
        assert got.dtype == torch.float32, what
        torch.testing.assert_close(got.double(), f(v), rtol=1e-3, atol=1e-3 * float(f(v).abs().max()), msg=what)


@pytest.mark.parametrize("name", LINEAR)
def test_forward_and_adjoint_differentiate(name):
    A = LINEAR[name]
    x = torch.randn(1, *A.ishape, generator=generator(2), dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, *A.oshape, generator=generator(3), dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad((A(x) * y.detach()).sum(), x)
    torch.testing.assert_close(grad, A.adjoint(y.detach()))
    (grad,) = torch.autograd.grad((A.adjoint(y) * x.detach()).sum(), y)
    torch.testing.assert_close(grad, A(x.detach()))


def test_a_mask_solves_to_full_precision_however_certain_the_data():
    """`(b - A'A b alpha / (alpha + beta)) / beta` would lose all digits of the kept pixels."""
    A = Mask(mask(30, 30))
    b = torch.rand(1, 30, 30, generator=generator(0), dtype=torch.float64) * 1e10
    x = A.solve(b.float(), 1e10, 1.0)
    torch.testing.assert_close(x[A.adjoint(A(x)) != 0], (b / (1e10 + 1))[A.adjoint(A(b)) != 0].float())


def test_constants_survive_a_change_of_precision():
    A = Blur(kernel(3, 4), (1, 7, 6))
    x = torch.randn(1, 1, 7, 6)
    wanted = A(x)
    torch.testing.assert_close(A.to(torch.float32)(x), wanted)


# What the operators mean, not only that they are consistent.


def test_blur_is_convolution_and_frame_is_where_the_data_lie():
    k, x = kernel(3, 4, seed=5), torch.randn(1, 1, 9, 8, generator=generator(4), dtype=torch.float64)
    wanted = torch.zeros(6 + 1, 5)
    for i in range(7):
        for j in range(5):
            wanted[i, j] = sum(k[a, b] * x[0, 0, i + 2 - a, j + 3 - b] for a in range(3) for b in range(4))
    inside = Blur(k, (1, 9, 8), "valid")
    torch.testing.assert_close(inside(x)[0, 0], wanted.double(), rtol=1e-5, atol=1e-6)
    around = Blur(k, (1, 9, 8))
    torch.testing.assert_close(around(x)[..., *inside.frame], inside(x))
    delta = torch.zeros(3, 4)
    delta[1, 2] = 1
    torch.testing.assert_close(Blur(delta, (1, 9, 8))(x), x)
    assert torch.equal(Blur(delta, (1, 9, 8), "valid")(x), x[..., *Blur(delta, (1, 9, 8), "valid").frame])


def test_separable_and_general_forms_agree():
    k, x = kernel(3, 1) * kernel(1, 4, seed=1), torch.randn(1, 2, 6, 8, generator=generator(5), dtype=torch.float64)
    down, valid = Downsample((2, 6, 8), 2, k), Blur(k, (2, 6, 8), "valid")
    assert isinstance(down.core, Separable) and isinstance(valid.core, Separable)
    torch.testing.assert_close(down(x), CircularFilter(k, (2, 6, 8), 2)(x))
    torch.testing.assert_close(valid(x), ValidFilter(k, (2, 6, 8))(x))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_is_imresize_with_antialiasing(factor):
    """Away from the border; torchvision's antialiased resize uses the same kernel and alignment."""
    from torchvision.transforms.functional import InterpolationMode, resize

    n = 16 * factor
    x = torch.rand(1, 3, n, n + factor, generator=generator(6), dtype=torch.float64)
    ours = Downsample((3, n, n + factor), factor)(x)
    theirs = resize(x, [16, 17], InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], rtol=1e-6, atol=1e-6)


def test_downsample_keeps_a_ramp_in_place():
    """Half-pixel alignment: the value of a linear ramp at a small pixel is that at its centre."""
    ramp = torch.arange(24, dtype=torch.float64).expand(1, 1, 24, 24)
    even = torch.exp(-(torch.arange(-3.5, 4).double() ** 2)).outer(torch.ones(2)) / 2
    for k in ("block", "bicubic", even.T / even.sum()):
        y = Downsample((1, 24, 24), 2, k)(ramp)[0, 0, 6, 4:8]
        centre = 2 * torch.arange(4, 8) + 0.5
        torch.testing.assert_close(y, centre.double(), rtol=0, atol=1e-9)


def test_large_pictures_use_the_fft_and_agree():
    A = Downsample((1, 2, 1026), 2)
    x = torch.randn(1, 1, 2, 1026, generator=generator(7), dtype=torch.float64)
    assert isinstance(A.core, CircularFilter)
    small = torch.cat([x[..., :512], x[..., :512]], -1)  # periodic: both sizes see the same neighbours
    torch.testing.assert_close(
        Downsample((1, 2, 1026 - 2), 2)(small)[..., :256], Downsample((1, 2, 512), 2)(small[..., :512])
    )
    A_dense = Separable(*(dense_rows(A, n, axis) for axis, n in enumerate((2, 1026))), (1,))
    torch.testing.assert_close(A(x), A_dense(x))


def test_larger_separable_operators_skip_their_zeros_correctly():
    A = Downsample((1, 240, 200), 2)
    x = torch.randn(1, 1, 240, 200, generator=generator(7), dtype=torch.float64)
    y = torch.randn(1, 1, 120, 100, generator=generator(8), dtype=torch.float64)
    R, C = dense_rows(A, 240, 0), dense_rows(A, 200, 1)
    torch.testing.assert_close(A(x), R @ x @ C.T)
    torch.testing.assert_close(A.adjoint(y), R.T @ y @ C)
    sparse = matrix(100, 100) * (torch.arange(100) > 90)  # chunks of zeros, a chunk of columns
    A = Separable(sparse.T, sparse, (1,))
    x = x[..., :100, :100]
    torch.testing.assert_close(A(x), sparse.T @ x @ sparse.T)
    torch.testing.assert_close(A.adjoint(x), sparse @ x @ sparse)


def dense_rows(A: Downsample, n: int, axis: int) -> Tensor:
    """The 1-D bicubic matrix of an axis, from its definition."""
    taps = kernels.bicubic(2).sum(0)
    M = torch.zeros(n // 2, n, dtype=torch.float64)
    for i in range(n // 2):
        for t, w in enumerate(taps):
            M[i, (2 * i - 3 + t) % n] += w
    return M


def test_dct_and_hadamard_are_the_textbook_ones():
    from scipy.fft import dctn
    from scipy.linalg import hadamard

    x = torch.randn(1, 1, 4, 8, generator=generator(8), dtype=torch.float64)
    ours = SubsampledOrthogonal((1, 4, 8), fraction=1.0)(x)[0, 0]
    torch.testing.assert_close(ours, torch.from_numpy(dctn(x[0, 0].numpy(), norm="ortho")).flatten())
    ours = SubsampledOrthogonal((1, 4, 8), "hadamard", fraction=1.0)(x)[0, 0]
    torch.testing.assert_close(ours, torch.from_numpy(hadamard(32) / 32**0.5) @ x.flatten())
    # Larger pictures go by fast transforms.
    x = torch.randn(1, 1, 2, 1024, generator=generator(9), dtype=torch.float64)
    fast = SubsampledOrthogonal((1, 2, 1024), "hadamard", fraction=1.0)
    torch.testing.assert_close(fast(x)[0, 0], torch.from_numpy(hadamard(2048) / 2048**0.5) @ x.flatten())
    torch.testing.assert_close(fast.adjoint(fast(x)), x)
    for size in ((3, 515), (2, 514)):
        x = torch.randn(1, 1, *size, generator=generator(9), dtype=torch.float64)
        fast = SubsampledOrthogonal((1, *size), fraction=1.0)
        torch.testing.assert_close(fast(x)[0, 0], torch.from_numpy(dctn(x[0, 0].numpy(), norm="ortho")).flatten())
        torch.testing.assert_close(fast.adjoint(fast(x)), x)


def test_closed_forms_are_used(monkeypatch):
    """No conjugate gradients where the structure of the parts gives the answer."""
    from operators import base, mri, valid

    def forbidden(*args, **kwargs):
        raise AssertionError("conjugate gradients were called")

    monkeypatch.setattr(base, "cg", forbidden)
    monkeypatch.setattr(valid, "cg", forbidden)
    monkeypatch.setattr(mri, "cg", forbidden)
    iterative = {
        "adjoint of a matrix", "valid blur 3x2", "valid blur 2x5", "valid blur to one pixel", "wide matrix",
        "tall matrix", "matrix of low rank", "mask of a blur", "gray of bicubic", "vstack along channels",
        "one coil with a map", "sense, points", "vstack flattened", "hstack with two hard parts",
        "hstack that cannot give all data", "reverb in full", "reverb longer than the speech", "reverb without tail",
        "full filter of pictures",
    }  # fmt: skip
    only_solve = {"adjoint of bicubic", "hstack of one", "vstack of one"}
    for name in set(LINEAR) - iterative:
        A = LINEAR[name]
        A.solve(torch.ones(1, *A.ishape), 1.0, 0.5)
        if name not in only_solve:
            A.pinv(torch.ones(1, *A.oshape))
    for name in iterative:
        with pytest.raises(AssertionError, match="were called"):
            LINEAR[name].solve(torch.ones(1, *LINEAR[name].ishape), 1.0, 0.5)


# Planted faults: each must break a law.


def test_faults_are_caught_and_named():
    A = Blur(kernel(3, 4), (1, 6, 7))

    def with_fault(**methods) -> LinearOperator:
        faulty = type("Faulty", (LinearOperator,), {"forward": lambda self, x: A(x), **methods})
        return faulty((1, 6, 7), (1, 6, 7))

    transposed = Blur(kernel(3, 4).T, (1, 6, 7))
    with pytest.raises(LawError, match="wanted 1"):
        assert_adjoint(with_fault(adjoint=lambda self, y: A(y)))  # the conjugate forgotten
    with pytest.raises(LawError, match="wanted 1"):
        assert_adjoint(with_fault(adjoint=lambda self, y: transposed.adjoint(y)))
    with pytest.raises(LawError, match="= 2, wanted 1"):
        assert_adjoint(with_fault(adjoint=lambda self, y: 2 * A.adjoint(y)))
    with pytest.raises(LawError, match="solve"):
        assert_solve(with_fault(solve=lambda self, b, alpha, beta: A.solve(b, alpha, 2 * beta)))
    with pytest.raises(LawError, match="A A\\^\\+ A"):
        assert_pinv(with_fault(pinv=lambda self, y: 1.001 * A.pinv(y)))
    with pytest.raises(LawError, match="differ by"):
        assert_linear(with_fault(forward=lambda self, x: A(x) + 0.01))
    with pytest.raises(LawError, match="differ by"):
        assert_linear(with_fault(forward=lambda self, x: A(x) / x.abs().mean()))
    svd = A.svd()
    assert svd is not None
    parts = {name: getattr(svd, name) for name in ("s", "U", "Ut", "V", "Vt")}
    for fault in ({"V": svd.U}, {"Ut": svd.Vt}, {"s": -svd.s}, {"s": 2 * svd.s}):
        with pytest.raises(LawError):
            assert_svd(with_fault(svd=lambda self, fault=fault: SVD(**{**parts, **fault})))


def test_a_wrong_gram_is_caught():
    A = Mask(mask(4, 5))
    A.gram = 2.0
    with pytest.raises(LawError):
        assert_solve(A)


# Conjugate gradients.


def test_cg_raises_when_it_does_not_converge():
    d = torch.logspace(-9, 0, 200, dtype=torch.float64)
    b = torch.ones(1, 200, dtype=torch.float64)
    with pytest.raises(ConvergenceError, match="stopped after 20 iterations at a relative residual of"):
        cg(lambda v: d * v, b, max_iter=20)
    with pytest.raises(ConvergenceError, match="curvature -"):
        cg(lambda v: -v, b)
    with pytest.raises(ConvergenceError, match="curvature nan"):
        cg(lambda v: v * torch.nan, b)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ConvergenceError, match="right-hand side holds NaN"):
            cg(lambda v: v, torch.tensor([[1.0, bad], [1.0, 1.0]]))
    hard = Dense(d.diag())
    with pytest.raises(ConvergenceError, match="badly conditioned"):
        hard.pinv(b)


def test_cg_solves_each_row_on_its_own_and_uses_the_preconditioner():
    d = torch.logspace(-5, 0, 300, dtype=torch.float64)
    b = torch.stack([torch.ones(300), 1e-8 * torch.rand(300, generator=generator(0)), torch.zeros(300)]).double()
    calls = []

    def matvec(v):
        calls.append(1)
        return d * v

    x = cg(matvec, b, precondition=lambda r: r / d)
    torch.testing.assert_close(x, b / d)
    assert len(calls) <= 2


def test_valid_blur_needs_tens_of_iterations_where_plain_cg_needs_hundreds(monkeypatch):
    from operators import valid

    A = Blur(kernels.disk(3), (1, 70, 54), "valid")
    calls = []
    real = valid.cg

    def counted(matvec, b, **kwargs):
        return real(lambda v: (calls.append(1), matvec(v))[1], b, **kwargs)

    monkeypatch.setattr(valid, "cg", counted)
    b = torch.randn(2, 1, 70, 54, generator=generator(0), dtype=torch.float64)
    x = A.solve(b, 1e3, 1.0)
    torch.testing.assert_close(1e3 * A.adjoint(A(x)) + x, b, rtol=0, atol=1e-6)
    assert len(calls) < 60


# Refusals.


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Mask(torch.zeros(3, 4, dtype=torch.bool)), ValueError, "keeps nothing"),
        (lambda: Mask(torch.ones(3, 4)), TypeError, "boolean"),
        (lambda: Blur(torch.ones(5, 3), (1, 4, 9)), ShapeError, r"kernel \(5 x 3\) is larger than the picture \(4 x 9"),
        (lambda: Blur(torch.ones(5), (1, 9, 9)), ShapeError, "kernel"),
        (lambda: Blur(torch.ones(3, 3), (1, 9, 9), "reflect"), ValueError, "circular.*valid"),
        (lambda: Downsample((1, 9, 8), 2), ShapeError, "crop it to 8 x 8"),
        (lambda: Downsample((1, 8, 8), 0), ValueError, "at least 1"),
        (lambda: Downsample((1, 8, 8), 2, "lanczos"), ValueError, "lanczos"),
        (lambda: Downsample((1, 8, 8), 2, torch.ones(9, 9)), ShapeError, "larger than the picture"),
        (lambda: Grayscale((1, 4, 4)), ShapeError, "one per channel"),
        (lambda: Grayscale((2, 4, 4), (0, 0)), ValueError, "zero"),
        (lambda: SubsampledOrthogonal((1, 6, 8), "hadamard"), ShapeError, "powers of two, got 6 x 8"),
        (lambda: SubsampledOrthogonal((1, 6, 8), "fft"), ValueError, "fft"),
        (lambda: SubsampledOrthogonal((1, 6, 8), fraction=1.5), ValueError, "1.5"),
        (lambda: SubsampledOrthogonal((1, 6, 8), indices=torch.tensor([3, 3])), ValueError, "distinct"),
        (lambda: Clip((3,), 1.0, 0.0), ValueError, "lo < hi"),
        (lambda: Quantize((3,), bits=0), ValueError, "bits"),
        (lambda: JPEG((2, 8, 8)), ShapeError, "JPEG"),
        (lambda: JPEG((3, 8, 8), quality=0), ValueError, "quality"),
        (lambda: Magnitude((1, 8, 8), oversampling=0.5), ValueError, "oversampling"),
        (lambda: Identity((3,)).solve(torch.ones(1, 3), 1.0, 0.0), ValueError, "use pinv"),
        (lambda: Identity((3,))(torch.ones(3)), ShapeError, r"x\[None\]"),
        (
            lambda: Grayscale((3, 4, 4)).adjoint(torch.ones(1, 3, 4, 4)),
            ShapeError,
            r"takes data of shape \(B, 1, 4, 4\)",
        ),
        (
            lambda: Downsample((1, 8, 8), 2).pinv(torch.ones(1, 1, 8, 8)),
            ShapeError,
            r"takes data of shape \(B, 1, 4, 4",
        ),
        (lambda: Blur(torch.ones(3, 3), (1, 9, 9)).solve(torch.ones(1, 9, 9), 1, 1), ShapeError, r"signals.*x\[None\]"),
        (lambda: compose(Identity((3,)), Identity((4,))), ShapeError, "gives"),
        (lambda: VStack(Identity((3,)), Identity((4,))), ShapeError, "input shape"),
        (lambda: HStack(Identity((3,)), Identity((4,))), ShapeError, "output shape"),
        (lambda: Chain(Clip((3,)), Clip((4,))), ShapeError, "gives"),
    ],
)
def test_refusals_say_what_is_wrong(make, error, words):
    with pytest.raises(error, match=words):
        make()


# Not linear.


@pytest.mark.parametrize("name", NONLINEAR)
def test_nonlinear_shapes_rows_and_gradients(name):
    A = NONLINEAR[name]
    x = torch.rand(2, *A.ishape, generator=generator(1), dtype=torch.float64) * 0.8 + 0.1
    y = A(x)
    assert y.shape == (2, *A.oshape) and A(x.float()).dtype == torch.float32
    torch.testing.assert_close(A(x[1:]), y[1:])
    if name not in ("quantize", "jpeg colour", "jpeg grey"):  # those round, and pass a gradient of their own choosing
        assert torch.autograd.gradcheck(A, x.requires_grad_())


def test_clip_and_quantize():
    x = torch.tensor([[-0.5, 0.1, 0.49, 0.51, 2.0]], requires_grad=True)
    assert torch.equal(Clip((5,))(x), x.clamp(0, 1))
    y = Quantize((5,), bits=1)(x)
    assert y.tolist() == [[0, 0, 0, 1, 1]]
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.tolist() == [[0, 1, 1, 1, 0]]
    fine = torch.rand(1, 1000, generator=generator(3))
    levels = Quantize((1000,), bits=8)(fine) * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert float((levels / 255 - fine).abs().max()) <= 0.5 / 255 + 1e-6


def test_jpeg_is_jpeg():
    """Close to what Pillow's encoder does to a photograph, worse at lower quality, the same in grey."""
    import io

    import numpy as np
    from PIL import Image
    from skimage.data import astronaut

    picture = astronaut()[100:196, 180:283]
    x = torch.from_numpy(picture / 255).permute(2, 0, 1)[None]
    errors = []
    for quality in (20, 80):
        ours = JPEG(tuple(x.shape[1:]), quality)(x)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        theirs = torch.from_numpy(np.asarray(Image.open(file)) / 255).permute(2, 0, 1)[None]
        errors.append(float((ours - x).square().mean().sqrt()))
        assert float((ours - theirs).square().mean().sqrt()) < 0.5 * errors[-1]
    assert errors[1] < 0.7 * errors[0]
    assert torch.autograd.grad(JPEG((3, 96, 103), 50)(x.requires_grad_()).square().sum(), x)[0].abs().sum() > 0


def test_magnitude_keeps_energy_forgets_position_and_differentiates_at_zero():
    A = Magnitude((1, 6, 5))
    x = torch.randn(1, 1, 6, 5, generator=generator(2), dtype=torch.float64)
    assert A.oshape == (1, 12, 10)
    torch.testing.assert_close(A(x).square().sum(), x.square().sum())
    torch.testing.assert_close(A(x.flip(-1, -2)), A(x))
    zero = torch.zeros(1, 1, 6, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(A(zero).sum(), zero)
    assert torch.isfinite(grad).all()


def test_public_names_load_on_first_use_and_nothing_heavy():
    code = (
        "import sys, operators; assert 'torch' not in sys.modules\n"
        "for name in operators.__all__: getattr(operators, name)\n"
        "assert not {'kornia', 'deepinv', 'torchvision', 'skimage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="Blurr"):
        _ = operators.Blurr
