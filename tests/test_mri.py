"""What the operators of MRI mean; that they are consistent is tested in `tests/test_operators.py`."""

import pytest
import torch

from operators import masks
from operators.base import ShapeError
from operators.espirit import espirit, noise_level, noise_samples, prewhiten
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


def phantom(H, W):
    """Ellipses with a smooth phase, zero outside the largest, `(H, W)` complex."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    image = torch.zeros(H, W)
    for value, cy, cx, a, b in ((1.0, 0, 0, 0.8, 0.7), (-0.6, 0.1, 0, 0.7, 0.6), (0.4, -0.2, 0.3, 0.2, 0.15)):
        image += value * (((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1)
    return torch.polar(image.clamp(min=0), 0.5 + x - 0.7 * y * x)


def scan(coils, H, W):
    """k-space of the phantom, with its maps: two of `(N, H, W)`."""
    maps = birdcage(coils, H, W)
    return to_complex(FFT2((2 * coils, H, W))(to_channels(maps * phantom(H, W))[None]))[0], maps


def projection_error(maps, wanted):
    """The share of `wanted` that `maps` do not explain where both are not zero, and the share of such places."""
    both = (maps != 0).any(0) & (wanted != 0).any(0)
    a, b = maps[:, both], wanted[:, both]
    error = (b - a * (a.conj() * b).sum(0) / a.abs().square().sum(0)).norm() / b.norm()
    return float(error), float(both.sum() / (wanted != 0).any(0).sum())


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


# Coil maps and noise.


@pytest.fixture(scope="module")
def scanned():
    k, maps = scan(6, 64, 52)
    sigma = 1e-3 * torch.arange(1, 7)[:, None, None]
    return k + sigma * noise(6, 64, 52, dtype=torch.complex64) * 2**0.5, maps, sigma.flatten()


def test_espirit_finds_the_maps_of_a_phantom(scanned):
    k, maps, _ = scanned
    found = espirit(k, calibration=20)
    inside = phantom(64, 52).abs() > 0.3
    error, seen = projection_error(found, maps * inside)
    assert error < 0.02 and seen > 0.98
    assert float((found != 0).any(0).float().mean()) < 0.7  # and are zero outside
    power = found.abs().square().sum(0)
    torch.testing.assert_close(power, (power > 0).float(), rtol=0, atol=1e-5)
    # The phase that is not in the maps is in the image, which they combine to: with no jump between its pixels.
    image = (found.conj() * to_complex(FFT2((12, 64, 52)).adjoint(to_channels(k)[None]))[0]).sum(0)
    steps = (image[:, 1:] * image[:, :-1].conj())[inside[:, 1:] & inside[:, :-1]]
    assert float(steps.angle().abs().max()) < 0.5


def test_espirit_uses_the_lines_that_were_sampled(scanned):
    k, maps, _ = scanned
    inside = phantom(64, 52).abs() > 0.3
    for axis, n in (("x", 12), ("y", 14)):
        lines = masks.random_lines((64, 52), 3, n, axis)
        error, seen = projection_error(espirit(k * lines), maps * inside)
        assert error < 0.05 and seen > 0.9
    points = masks.poisson_disc((64, 52), 3, 20)
    assert projection_error(espirit(k * points), maps * inside)[0] < 0.03
    y, x = torch.meshgrid(torch.arange(64) - 32, torch.arange(52) - 26, indexing="ij")
    disc = y**2 + x**2 < 12**2
    assert projection_error(espirit(k * disc), maps * inside)[0] < 0.03
    assert torch.equal(espirit(k * 1j), espirit(k)) or projection_error(espirit(k * 1j), espirit(k))[0] < 1e-4


@pytest.mark.slow  # SigPy compiles
def test_espirit_is_sigpys(scanned):
    app = pytest.importorskip("sigpy.mri.app")
    k, _, _ = scanned
    theirs = app.EspiritCalib(k.numpy(), 20, 0.02, 6, 0.95, show_pbar=False).run()
    error, seen = projection_error(espirit(k, calibration=20), torch.from_numpy(theirs))
    assert error < 1e-3 and seen > 0.999


def test_operators_are_sigpys(scanned):
    linop = pytest.importorskip("sigpy.mri.linop")
    _, maps, _ = scanned
    lines, z = masks.random_lines((64, 52), 3), phantom(64, 52)
    theirs = torch.from_numpy(linop.Sense(maps.numpy(), weights=lines.numpy())(z.numpy())).to(z.dtype)
    ours = sense(lines, maps)(to_channels(z[None])[None])[0]
    torch.testing.assert_close(ours[0::2], theirs[:, lines].real, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[1::2], theirs[:, lines].imag, rtol=0, atol=1e-5)


def test_noise_level_from_the_edges_of_k_space():
    k, _ = scan(4, 96, 80)
    sigma = 0.1 * torch.arange(1, 5)
    k = k + sigma[:, None, None] * noise(4, 96, 80, dtype=torch.complex64) * 2**0.5
    torch.testing.assert_close(noise_level(noise_samples(k)), sigma, rtol=0.2, atol=0)
    lines = masks.random_lines((96, 80), 3)
    torch.testing.assert_close(noise_level(noise_samples(k * lines, 0.1)), sigma, rtol=0.2, atol=0)
    known = noise(4, 20000) * torch.tensor([[1.0], [2], [3], [4]]) * 2**0.5
    torch.testing.assert_close(noise_level(known), torch.arange(1.0, 5).double(), rtol=0.02, atol=0)


def test_prewhitened_noise_is_independent_and_of_level_one():
    mix = noise(4, 4, seed=1)
    k = mix @ noise(4, 30000)
    white = prewhiten(k.view(4, 100, 300), mix @ noise(4, 30000, seed=2)).flatten(1)
    covariance = white @ white.mH / 30000
    torch.testing.assert_close(covariance, 2 * torch.eye(4).to(covariance), rtol=0, atol=0.05)
    torch.testing.assert_close(noise_level(white), torch.ones(4).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: espirit(torch.ones(2, 32, 32)), ShapeError, "complex"),
        (lambda: espirit(noise(32, 32)), ShapeError, r"\(coils, H, W\)"),
        (lambda: espirit(torch.nan * noise(2, 32, 32)), ValueError, "NaN"),
        (lambda: espirit(noise(2, 32, 32) * masks.equispaced((32, 32), 4, 0)), ValueError, "24 x 1 points"),
        (lambda: espirit(noise(2, 32, 32) * 0), ValueError, "middle of k-space is needed"),
        (lambda: espirit(noise(2, 32, 32), crop=1.1), ValueError, "crop=1.1"),
        (lambda: noise_samples(noise(8, 8, 8)), ValueError, "3 points .* 8 coils"),
        (lambda: noise_level(torch.ones(2, 9)), ShapeError, r"\(coils, samples\)"),
        (lambda: prewhiten(noise(2, 8, 8), noise(3, 90)), ShapeError, "3 coils, but k-space has 2"),
        (lambda: prewhiten(noise(2, 8, 8), noise(1, 90).expand(2, 90)), ValueError, "not independent"),
        (lambda: prewhiten(noise(2, 8, 8), noise(2, 90) * torch.tensor([[1.0], [0]])), ValueError, "dead"),
        (lambda: prewhiten(noise(4, 8, 8), noise(4, 3)), ValueError, "3 samples"),
    ],
)
def test_calibration_refuses_in_words(make, error, words):
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


def test_the_centre_without_a_gap():
    lines = masks.random_lines((96, 40), 4, centre=14, axis="y")
    lines[40] = lines[56] = False
    assert masks.centre_block(lines) == (slice(41, 55), slice(0, 40))
    assert masks.centre_block(lines, most=8) == (slice(44, 52), slice(16, 24))
    y, x = torch.arange(96)[:, None] - 48, torch.arange(40) - 20
    disc = (y / 3) ** 2 + x**2 < 100  # longer along y
    assert masks.centre_block(disc) == (slice(35, 62), slice(11, 30)) and disc[35:62, 11:30].all()
    lines[48] = False
    assert 0 in lines[masks.centre_block(lines)].shape
