"""What a full scan would have shown, given draws of the anatomy and the lines that were measured."""

import numpy as np
import pytest
from scan_parts import head, kspace, maps

from restore.modalities.mri import fft2, ifft2
from restore.scan_full import body_of, of_full_scan
from restore.scan_pose import combined

SIGMA = 0.05
LINES = np.arange(48) % 3 == 0
USED = np.broadcast_to(LINES[:, None], (48, 40))


@pytest.mark.parametrize("coils", [1, 4])
def test_mean_and_variance_are_those_of_images_made_with_fresh_noise_on_the_other_lines(coils):
    S = maps(coils=coils)
    S[:, :, :6] = 0  # where no coil sees
    k, rng = kspace(coils=coils, sigma=SIGMA), np.random.default_rng(1)
    draws = head() * np.array([1.0, 0.7])[:, None, None]
    mean, variance = of_full_scan(draws, k, USED, None if coils == 1 else S, SIGMA)
    S = np.ones_like(S) if coils == 1 else S
    for x, m, v in zip(draws, mean, variance, strict=True):
        n = SIGMA * (rng.standard_normal((2000, *S.shape)) + 1j * rng.standard_normal((2000, *S.shape)))
        images = np.stack([np.abs(combined(ifft2(np.where(USED, k, fft2(S * x) + one)), S)) for one in n])
        error = np.abs(images.mean(0) - m)
        assert (error <= 5 * np.sqrt(v / 2000) + 1e-6).all()
        assert images.var(0).mean() == pytest.approx(v.mean(), rel=0.01)
        if coils > 1:
            assert not m[:, :6].any() and not v[:, :6].any()


def test_what_was_measured_stays_and_nothing_is_added_to_it():
    k, S = kspace(sigma=SIGMA), maps()
    mean, variance = of_full_scan(np.zeros((1, 48, 40), complex), k, np.ones((48, 40), bool), S, SIGMA)
    np.testing.assert_allclose(mean[0], np.abs(combined(ifft2(k), S)), atol=1e-6)
    assert variance.max() < 1e-9


def test_the_body_is_found_under_noise_and_without():
    rng = np.random.default_rng(0)
    x = head()
    clean = body_of(np.abs(x))
    assert 0.4 < clean.mean() < 0.6 and clean[24, 20] and not clean[:3].any()
    noisy = np.abs(x + 0.15 * (rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape)))
    assert (body_of(noisy, 0.15) == clean).mean() > 0.93
    assert body_of(noisy).mean() > 0.75  # of noise that is not told, the background is body
