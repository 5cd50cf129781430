"""Point spread functions: normalised, centred, as wide as they say, and read from the files people have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from operators import kernels


def moments(k: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the kernel as a distribution over `(row, column)`."""
    at = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in k.shape), indexing="ij")).flatten(1)
    mean = at @ k.flatten()
    dev = at - mean[:, None]
    return mean, (dev * k.flatten()) @ dev.T


@pytest.mark.parametrize(
    "text",
    ["gaussian:0.3", "gaussian:2.0", "motion:1,0", "motion:15,30", "motion:8.5,-72", "disk:0.4", "disk:1", "disk:4.3"],
)
def test_kernels_are_normalised_odd_symmetric_and_centred(text):
    k = kernels.parse(text)
    assert k.dtype == torch.float64 and k.is_contiguous()
    assert float(k.sum()) == pytest.approx(1, abs=1e-12) and float(k.min()) >= 0
    assert all(n % 2 == 1 for n in k.shape)
    torch.testing.assert_close(k, k.flip(0, 1), rtol=0, atol=1e-12)


def test_gaussian_has_its_std():
    covariance = moments(kernels.gaussian(2.0))[1]
    torch.testing.assert_close(covariance, 4 * torch.eye(2).double(), rtol=0, atol=0.01)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120])
def test_motion_has_its_length_and_runs_counter_clockwise(angle):
    covariance = moments(kernels.motion(21, angle))[1]
    along = torch.tensor([-math.sin(math.radians(angle)), math.cos(math.radians(angle))]).double()  # rows point down
    across = torch.stack([-along[1], along[0]])
    assert float(along @ covariance @ along) == pytest.approx(21**2 / 12, rel=0.02)
    assert float(across @ covariance @ across) < 0.2


def test_horizontal_motion_is_a_row():
    torch.testing.assert_close(kernels.motion(5), torch.full((1, 5), 0.2).double())


def test_disk_has_its_radius():
    k = kernels.disk(5.0)
    torch.testing.assert_close(moments(k)[1], 25 / 4 * torch.eye(2).double(), rtol=0, atol=0.15)
    assert float(k.max()) == pytest.approx(1 / (math.pi * 25), rel=0.01)
    torch.testing.assert_close(k, k.T)


@pytest.fixture
def psf() -> np.ndarray:
    """An asymmetric spot away from the middle of a black frame."""
    out = np.zeros((20, 30))
    out[4:7, 8:12] = [[10, 20, 10, 0], [30, 200, 100, 20], [0, 60, 40, 10]]
    return out


@pytest.mark.parametrize(
    "kind", ["npy", "float.tif", "16.tif", "8.png", "16.png", "rgb.png", "rgba.png", "palette.png"]
)
def test_files(tmp_path, psf, kind):
    path = tmp_path / f"psf.{kind}"
    if kind == "npy":
        np.save(path, psf)
    elif kind == "float.tif":
        tifffile.imwrite(path, psf.astype(np.float32) / 7)
    elif kind == "16.tif":
        tifffile.imwrite(path, (psf * 100).astype(np.uint16))
    elif kind == "16.png":
        Image.fromarray((psf * 100).astype(np.uint16)).save(path)
    else:
        picture = Image.fromarray(psf.astype(np.uint8))
        modes = {"8": "L", "rgb": "RGB", "rgba": "RGBA", "palette": "L"}
        picture = picture.convert(modes[kind.split(".")[0]])
        (picture.quantize(256) if kind == "palette.png" else picture).save(path)
    k = kernels.parse(str(path))
    assert float(k.sum()) == pytest.approx(1) and all(n % 2 == 1 for n in k.shape)
    mean, _ = moments(k)
    assert max(abs(float(m) - (n - 1) / 2) for m, n in zip(mean, k.shape, strict=True)) <= 0.5
    spot = psf[4:7, 8:12] / psf.sum()
    occupied = k[k.sum(1) > 0][:, k.sum(0) > 0]
    torch.testing.assert_close(occupied, torch.from_numpy(spot), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((4, 4)), "zero everywhere"),
        (np.array([[1.0, -0.25]]), r"negative entries \(smallest -0.25\)"),
        (np.array([[1.0, np.nan]]), "NaN"),
        (np.ones((5, 5, 5)), "two-dimensional"),
    ],
)
def test_files_that_hold_no_kernel_are_named_and_refused(tmp_path, values, words):
    path = tmp_path / "bad.npy"
    np.save(path, values)
    with pytest.raises(ValueError, match=words) as error:
        kernels.from_file(path)
    assert "bad.npy" in str(error.value)


@pytest.mark.parametrize("name", ["text.png", "text.tif", "text.npy"])
def test_a_text_file_is_refused(tmp_path, name):
    (tmp_path / name).write_text("not a picture")
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a kernel"):
        kernels.from_file(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("gausian:2", FileNotFoundError, "gaussian:SIGMA, motion:LENGTH,ANGLE, disk:RADIUS"),
        ("gaussian", ValueError, "write gaussian:SIGMA"),
        ("gaussian:two", ValueError, "write gaussian:SIGMA"),
        ("gaussian:-1", ValueError, "positive sigma"),
        ("gaussian:nan", ValueError, "positive sigma"),
        ("motion:15", ValueError, "write motion:LENGTH,ANGLE"),
        ("motion:0,30", ValueError, "at least one pixel"),
        ("disk:0", ValueError, "positive radius"),
        ("gaussian:1e5", ValueError, "gaussian:SIGMA may be 200 pixels at most"),
        ("motion:inf,30", ValueError, "motion:LENGTH may be 200 pixels at most"),
    ],
)
def test_refusals(text, error, words):
    with pytest.raises(error, match=words):
        kernels.parse(text)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"no kernel file nowhere\.png"):
        kernels.from_file("nowhere.png")
