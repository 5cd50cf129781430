"""Small scans with a known truth, and files of them."""

import numpy as np
from scipy.ndimage import gaussian_filter
from standin import Local

from restore.modalities.mri import fft2
from restore.priors.base import per_row
from restore.priors.covariance import Scalar

SHAPE, COILS = (48, 40), 4


def head(shape=SHAPE):
    """A complex picture of soft ellipses, `(y, x)`, about as bright as 1, next to zero at its borders."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    y = y[:, None]
    out = 0.5 * ((y / 0.8) ** 2 + (x / 0.7) ** 2 < 1) + 0.5 * (((y - 0.2) / 0.3) ** 2 + (x / 0.25) ** 2 < 1)
    soft = gaussian_filter(out, 1.5)  # so that the edges of its k-space are empty
    return (soft * np.exp(1j * (x + 0.5 * y))).astype(np.complex64)


def maps(shape=SHAPE, coils=COILS):
    y, x = (np.linspace(-1, 1, n) for n in shape)
    at = 2 * np.pi * np.arange(coils) / coils
    far = (y[:, None] - 1.5 * np.sin(at)[:, None, None]) ** 2 + (x - 1.5 * np.cos(at)[:, None, None]) ** 2
    found = np.exp(-far / 3) * np.exp(1j * at)[:, None, None]
    return (found / np.sqrt(np.square(np.abs(found)).sum(0))).astype(np.complex64)


def kspace(shape=SHAPE, coils=COILS, sigma=0.01, slices=None, seed=0):
    """`(coil, y, x)`, or `(slice, coil, y, x)` whose slices are scaled by 1, 2, ...; `sigma` per real number."""
    rng = np.random.default_rng(seed)
    clean = fft2(maps(shape, coils) * head(shape))
    factors = np.ones(1) if slices is None else 1.0 + np.arange(slices)
    k = factors[:, None, None, None] * clean
    k = k + sigma * (rng.standard_normal(k.shape) + 1j * rng.standard_normal(k.shape))
    return (k[0] if slices is None else k).astype(np.complex64)


def cfl(path, array):
    """BART's pair of files; `array` has BART's order of dimensions."""
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + " \n")
    array.astype(np.complex64).ravel(order="F").tofile(path)


HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{ex}</x><y>{ey}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{rx}</x><y>{ey}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{rfx}</x><y>{fy}</y><z>5</z></fieldOfView_mm></reconSpace>
<trajectory>{trajectory}</trajectory></encoding></ismrmrdHeader>"""


def header(ey, ex, rx=None, mm=2.0, trajectory="cartesian"):
    rx = rx or ex
    return HEADER.format(ex=ex, ey=ey, rx=rx, fx=mm * ex, fy=mm * ey, rfx=mm * rx, trajectory=trajectory)


def ismrmrd(path, lines, xml=None, noise=None, trajectory=None):
    """An ISMRMRD file of `lines`, each `(slice, line, (coil, samples), flags)`, and the `trajectory` of each."""
    import h5py

    idx = np.dtype([("kspace_encode_step_1", "<u2"), ("kspace_encode_step_2", "<u2"), ("slice", "<u2"),
                    ("contrast", "<u2"), ("phase", "<u2"), ("repetition", "<u2"), ("set", "<u2")])  # fmt: skip
    head = np.dtype([("flags", "<u8"), ("number_of_samples", "<u2"), ("active_channels", "<u2"),
                     ("discard_pre", "<u2"), ("discard_post", "<u2"), ("center_sample", "<u2"),
                     ("trajectory_dimensions", "<u2"), ("idx", idx)])  # fmt: skip
    floats = h5py.vlen_dtype(np.dtype("<f4"))
    if noise is not None:
        lines = [(0, 0, noise, 1 << 18), *lines]
    rows = np.zeros(len(lines), np.dtype([("head", head), ("traj", floats), ("data", floats)]))
    for n, (s, line, data, flags) in enumerate(lines):
        row = rows[n]
        row["head"]["flags"], row["head"]["number_of_samples"] = flags, data.shape[1]
        row["head"]["active_channels"], row["head"]["center_sample"] = len(data), data.shape[1] // 2
        row["head"]["idx"]["slice"], row["head"]["idx"]["kspace_encode_step_1"] = s, line
        rows["data"][n] = np.ascontiguousarray(data, np.complex64).view(np.float32).ravel()
        points = np.zeros(0) if trajectory is None else trajectory[n]
        row["head"]["trajectory_dimensions"] = 0 if trajectory is None else 2
        rows["traj"][n] = points.astype(np.float32).ravel()
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/data", data=rows)
        if xml is not None:
            text = h5py.string_dtype()
            file.create_dataset("dataset/xml", data=np.array([xml], dtype=object), dtype=text)


class Sure(Local):
    """Believes that it knows every picture to a thousandth of its noise."""

    def covariance(self, x, sigma):
        return Scalar(1e-6 * sigma**2)


class Grey(Local):
    """Knows one channel only."""

    shape = (1, None, None)


class Sees(Local):
    """Sees one picture everywhere."""

    def __init__(self, picture):
        super().__init__()
        self.picture = picture

    def forward(self, x, sigma):
        s2 = per_row(sigma, x).square()
        return x + (self.picture - x) * s2 / (s2 + 0.0001)
