"""What the operators of MRI mean; that they are consistent is tested in `tests/test_operators.py`."""

import pytest
import torch

from operators import masks
from operators.base import ShapeError
from operators.mri import FFT2, Coils, Sense, SenseLines, sense, to_channels, to_complex
from operators.random import generator


def noise(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def birdcage(coils, H, W):
    """Smooth sensitivities of coils around the slice, of root sum of squares one, `(N, H, W)`."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    angle = 2 * torch.pi * torch.arange(coils)[:, None, None] / coils
    dy, dx = y - 1.5 * angle.sin(), x - 1.5 * angle.cos()
    maps = torch.polar(1 / (dy**2 + dx**2), torch.atan2(dy, dx) + angle)
    return maps / maps.abs().square().sum(0).sqrt()


# Operators.


def test_channels_are_coil_major_and_come_back():
    z = noise(3, 4, 5)
    x = to_channels(z)
    assert x.shape == (6, 4, 5)
    assert torch.equal(x[2], z[1].real) and torch.equal(x[3], z[1].imag)
    assert torch.equal(to_complex(x), z) and torch.equal(to_complex(to_channels(z.conj())), z.conj())


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (4, 5)])
def test_the_transform_is_the_centred_one(size):
    """`sum_p x_p exp(-2 pi i (k - n // 2) (p - n // 2) / n) / sqrt(n)` on each axis."""
    z = noise(2, *size)
    E = []
    for n in size:
        p = torch.arange(n, dtype=torch.float64) - n // 2
        E.append(torch.polar(torch.full((n, n), n**-0.5, dtype=torch.float64), -2 * torch.pi * p[:, None] * p / n))
    got = to_complex(FFT2((4, *size))(to_channels(z)[None]))[0]
    torch.testing.assert_close(got, E[0] @ z @ E[1].T)


def test_sense_holds_the_sampled_points_of_each_coil_in_order():
    maps, z = noise(3, 5, 6), noise(1, 5, 6, seed=1)
    mask = torch.rand(5, 6, generator=generator(2)) > 0.5
    y = sense(mask, maps)(to_channels(z)[None])[0]
    assert y.shape == (6, int(mask.sum()))
    k = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(maps * z, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))
    torch.testing.assert_close(y, torch.stack([k[:, mask].real, k[:, mask].imag], 1).flatten(0, 1))
    alone = sense(mask)(to_channels(z)[None])
    torch.testing.assert_close(alone, sense(mask, torch.ones_like(maps[:1]))(to_channels(z)[None]))


def test_sense_picks_the_form_that_fits_the_mask():
    maps = birdcage(4, 12, 10)
    lines = masks.random_lines((12, 10), 2, 2)
    assert isinstance(sense(lines, maps), SenseLines) and sense(lines, maps).svd() is not None
    assert type(sense(masks.poisson_disc((12, 10), 2, 2), maps)) is Sense
    assert sense(lines).gram == 1.0


def test_lines_in_closed_form_agree_with_conjugate_gradients_in_single_precision():
    maps, b = birdcage(6, 48, 40), torch.randn(3, 2, 48, 40, generator=generator(0))
    maps[:, :9] = 0  # outside the head
    for axis in ("x", "y"):
        lines = masks.random_lines((48, 40), 3, 4, axis)
        A, by_cg = sense(lines, maps), Sense(lines, maps)
        torch.testing.assert_close(A.solve(b, 50.0, 1.0), by_cg.solve(b, 50.0, 1.0), rtol=0, atol=1e-4)
        torch.testing.assert_close(A.normal(b), A.adjoint(A(b)), rtol=0, atol=1e-5)
        y = A(b)
        torch.testing.assert_close(A(A.pinv(y)), y, rtol=0, atol=5e-3)


def test_two_coils_that_differ_restore_half_the_lines_exactly():
    maps, z = birdcage(4, 32, 24).to(torch.complex128), noise(1, 32, 24)
    A = sense(masks.equispaced((32, 24), 2, 0), maps)
    torch.testing.assert_close(A.pinv(A(to_channels(z)[None])), to_channels(z)[None])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: FFT2((3, 4, 4)), ShapeError, "even number of channels"),
        (lambda: Coils(torch.ones(2, 4, 4)), TypeError, "complex"),
        (lambda: Coils(noise(4, 4)), ShapeError, r"\(coils, H, W\)"),
        (lambda: Coils(noise(0, 4, 4)), ShapeError, "at least one"),
        (lambda: Coils(0 * noise(2, 4, 4)), ValueError, "zero everywhere"),
        (lambda: Coils(torch.nan * noise(2, 4, 4)), ValueError, "NaN"),
        (lambda: sense(torch.ones(4, 5, dtype=torch.bool), noise(2, 4, 4)), ShapeError, r"\(4, 5\) does not match"),
        (lambda: sense(torch.ones(2, 4, 4, dtype=torch.bool)), ShapeError, r"\(H, W\)"),
        (lambda: sense(torch.zeros(4, 4, dtype=torch.bool), noise(2, 4, 4)), ValueError, "keeps nothing"),
        (lambda: sense(torch.ones(4, 4), noise(2, 4, 4)), TypeError, "boolean"),
        (lambda: masks.equispaced((8, 8), 9), ValueError, "from 1 to 8, got 9"),
        (lambda: masks.equispaced((8, 8), 2, axis="z"), ValueError, "'x' or 'y', got 'z'"),
        (lambda: masks.random_lines((8, 8), 4, 3), ValueError, "fewer than the 3 of the centre"),
        (lambda: masks.random_lines((8, 8), 0.5), ValueError, "at least 1, got 0.5"),
        (lambda: masks.random_lines((8, 8), 2, 9), ValueError, "up to 8, got 9"),
        (lambda: masks.poisson_disc((16, 16), 4, 12), ValueError, "144 of them in the centre"),
    ],
)
def test_refusals_say_what_is_wrong(make, error, words):
    with pytest.raises(error, match=words):
        make()


# Masks.


def test_lines_are_whole_counted_and_drawn():
    for axis, dim, n in (("x", 0, 40), ("y", 1, 60)):
        mask = masks.random_lines((60, 40), 4, 0.1, axis, generator(1))
        assert mask.dtype == torch.bool and mask.shape == (60, 40)
        kept = mask.select(dim, 0)
        assert torch.equal(mask, kept.unsqueeze(dim).expand_as(mask)) and int(kept.sum()) == n // 4
        width = round(0.1 * n)
        assert kept[n // 2 - width // 2 : n // 2 - width // 2 + width].all()
        assert not torch.equal(mask, masks.random_lines((60, 40), 4, 0.1, axis, generator(2)))
        assert torch.equal(mask, masks.random_lines((60, 40), 4, 0.1, axis, generator(1)))


def test_equispaced_lines_go_through_the_zero_frequency_unless_drawn():
    mask = masks.equispaced((8, 13), 4, 3)
    assert mask[0].nonzero().flatten().tolist() == [2, 5, 6, 7, 10]
    drawn = {masks.equispaced((8, 12), 3, 0, rng=generator(i))[0].nonzero()[0].item() for i in range(20)}
    assert drawn == {0, 1, 2}
    both = masks.equispaced((8, 12), (2, 3), 2)
    assert both[4].sum() == 5 and both[2].sum() == 4 and both[1].sum() == 0 and both[3, 5] and both[4, 6]


@pytest.mark.parametrize("accel", [2, 6])
def test_points_keep_their_distance_and_their_number(accel):
    H, W = 60, 48
    mask = masks.poisson_disc((H, W), accel, 0, generator(0))
    assert abs(float(mask.sum()) * accel / (H * W) - 1) <= 0.02
    points = mask.nonzero().double()
    distance = torch.cdist(points, points).fill_diagonal_(torch.inf).min(1).values
    rho = (2 * (points / torch.tensor([H, W]) - 0.5)).abs().max(1).values
    inner, outer = distance[rho < 0.3].mean(), distance[rho > 0.7].mean()
    assert outer > 1.3 * inner and distance[rho > 0.8].min() > 0.6 * outer
    assert not torch.equal(mask, masks.poisson_disc((H, W), accel, 0, generator(1)))
    assert masks.poisson_disc((H, W), accel, 10)[H // 2 - 5 : H // 2 + 5, W // 2 - 5 : W // 2 + 5].all()
