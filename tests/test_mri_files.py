"""Scans in every format, written here: what is read is what was measured, and bad files are refused in words."""

import numpy as np
import pytest
import scipy.io
from scan_parts import COILS, SHAPE, cfl, head, header, ismrmrd, kspace, maps

from restore.errors import InputError
from restore.modalities.mri import fft2, ifft2, read_maps, read_mask, read_scan
from restore.modalities.mri_scan import without_oversampling
from restore.modalities.mri_write import write_volume

h5py = pytest.importorskip("h5py")
nibabel = pytest.importorskip("nibabel")


def fastmri(path, k, mask=None, xml=None):
    with h5py.File(path, "w") as file:
        file["kspace"] = k
        if mask is not None:
            file["mask"] = mask
        if xml is not None:
            file["ismrmrd_header"] = xml


def refused(path, said, **options):
    with pytest.raises(InputError, match=said):
        scan = read_scan(path, **options)
        for i in range(scan.slices):
            scan.kspace(i)


def test_npy_in_any_order_of_axes(tmp_path):
    k = kspace(slices=3)
    orders = {"slice,coil,y,x": (0, 1, 2, 3), "y,x,coil,slice": (2, 3, 1, 0), "x,slice,y,coil": (3, 0, 2, 1)}
    for told, order in orders.items():
        np.save(tmp_path / "k.npy", k.transpose(order))
        scan = read_scan(tmp_path / "k.npy", axes=told)
        assert (scan.slices, scan.coils, scan.shape) == (3, COILS, SHAPE)
        np.testing.assert_array_equal(scan.kspace(2), k[2])
    for order in ((0, 1, 2, 3), (2, 3, 1, 0)):  # guessed: coils and slices first, or last
        np.save(tmp_path / "k.npy", k.transpose(order))
        np.testing.assert_array_equal(read_scan(tmp_path / "k.npy").kspace(1), k[1])


def test_what_was_taken_for_which_axis_is_said(tmp_path):
    np.save(tmp_path / "k.npy", kspace().transpose(1, 2, 0))
    scan = read_scan(tmp_path / "k.npy")
    assert scan.axes == "y 48, x 40, coil 4 (guessed by their lengths; --axes says otherwise)"
    np.testing.assert_array_equal(scan.kspace(0), kspace())


def test_real_and_imaginary_part_apart(tmp_path):
    k = kspace()
    np.save(tmp_path / "k.npy", np.stack([k.real, k.imag], -1))
    np.testing.assert_array_equal(read_scan(tmp_path / "k.npy").kspace(0), k)


def test_zero_frequency_at_the_corner_is_moved(tmp_path):
    k = kspace()
    np.save(tmp_path / "k.npy", np.fft.ifftshift(k, (1, 2)))
    scan = read_scan(tmp_path / "k.npy")
    np.testing.assert_array_equal(scan.kspace(0), k)
    assert "corner" in scan.notes[0]


def test_bart(tmp_path):
    k = kspace()
    for array in (k.transpose(1, 2, 0)[None, :, :, :, None], k.transpose(2, 1, 0)[:, :, None]):
        cfl(tmp_path / "k.cfl", array)
        scan = read_scan(tmp_path / "k.cfl")
        planes = {(48, 40): k, (40, 48): k.transpose(0, 2, 1)}
        np.testing.assert_array_equal(scan.kspace(0), planes[scan.shape])
    np.testing.assert_array_equal(read_scan(tmp_path / "k.hdr").kspace(0), scan.kspace(0))


def test_three_dimensional_kspace_becomes_slices(tmp_path):
    x = np.stack([fft2(maps() * head()) * f for f in (1, 3, 2, 1)], 0)  # (read, coil, y, x), a picture along read
    z = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(x, 0), axis=0, norm="ortho"), 0)
    cfl(tmp_path / "k.cfl", z.transpose(0, 2, 3, 1))
    scan = read_scan(tmp_path / "k.cfl")
    assert scan.slices == 4 and "became as many slices" in scan.notes[0]
    for i in range(4):
        np.testing.assert_allclose(scan.kspace(i), x[i], atol=1e-4)


def test_matlab_of_both_versions(tmp_path):
    k = kspace()
    scipy.io.savemat(tmp_path / "k.mat", {"other": np.zeros(3), "raw": {"kdata": k.transpose(1, 2, 0)}})
    np.testing.assert_array_equal(read_scan(tmp_path / "k.mat").kspace(0), k)
    np.testing.assert_array_equal(read_scan(tmp_path / "k.mat", key="raw.kdata").kspace(0), k)
    scipy.io.savemat(tmp_path / "two.mat", {"raw": k, "more": 2 * k})
    assert read_scan(tmp_path / "two.mat").notes == ("the array raw is taken, not more: --key says otherwise",)
    assert not read_scan(tmp_path / "two.mat", key="more").notes and not read_scan(tmp_path / "k.mat").notes
    refused(tmp_path / "k.mat", "no array 'ksp' in it; wanted one of other, raw.kdata", key="ksp")
    pairs = np.zeros(k.shape[::-1], [("real", "f4"), ("imag", "f4")])  # MATLAB's array is (coil, y, x)
    pairs["real"], pairs["imag"] = k.real.T, k.imag.T
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["k"] = pairs
        file["k"].attrs["MATLAB_class"] = np.bytes_("single")
    with open(tmp_path / "new.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    np.testing.assert_array_equal(read_scan(tmp_path / "new.mat").kspace(0), k)


def test_fastmri_with_and_without_header_and_mask(tmp_path):
    k, lines = kspace(slices=2), np.arange(SHAPE[1]) % 2 == 0
    fastmri(tmp_path / "k.h5", k)
    scan = read_scan(tmp_path / "k.h5")
    np.testing.assert_array_equal(scan.kspace(1), k[1])
    assert scan.spacing is None and "no header" in scan.notes[0] and scan.phase_axis == "x"
    fastmri(tmp_path / "k.h5", k[:, 0], lines, header(SHAPE[1], SHAPE[0]))  # one coil; the readout comes first
    scan = read_scan(tmp_path / "k.h5")
    assert scan.coils == 1 and scan.spacing == (2, 2, 5)
    np.testing.assert_array_equal(scan.mask, np.broadcast_to(lines, SHAPE))
    fastmri(tmp_path / "k.h5", k, lines[:-1])
    refused(tmp_path / "k.h5", "a mask of 39 lines in the file; wanted 40")


def test_ismrmrd(tmp_path):
    k = kspace(slices=2)
    rng = np.random.default_rng(1)
    noise = (rng.standard_normal((COILS, 64)) + 1j * rng.standard_normal((COILS, 64))).astype(np.complex64)
    lines = [(s, y, k[s, :, y], 0) for y in range(0, SHAPE[0], 2) for s in (0, 1)]
    lines += [(0, 5, 3 * k[0, :, 5], 0), (0, 5, k[0, :, 5], 0)]  # averaged
    lines += [(1, 7, k[1, :, 7, ::-1], 1 << 21), (1, 9, 100 * k[1, :, 9], 1 << 23)]  # reversed; phase correction
    ismrmrd(tmp_path / "k.h5", lines, header(*SHAPE), noise)
    scan = read_scan(tmp_path / "k.h5")
    np.testing.assert_array_equal(scan.noise, noise)
    assert scan.spacing == (2, 2, 5)
    wanted = np.zeros_like(k)
    wanted[:, :, ::2] = k[:, :, ::2]
    wanted[0, :, 5], wanted[1, :, 7] = 2 * k[0, :, 5], k[1, :, 7]
    for s in (0, 1):
        np.testing.assert_allclose(scan.kspace(s), wanted[s], rtol=1e-6)


def test_ismrmrd_without_a_header(tmp_path):
    k = kspace()
    ismrmrd(tmp_path / "k.h5", [(0, y, k[:, y], 0) for y in range(SHAPE[0])])
    scan = read_scan(tmp_path / "k.h5")
    np.testing.assert_array_equal(scan.kspace(0), k)
    assert "no header" in scan.notes[0]


def test_readout_oversampling_is_removed(tmp_path):
    shape = (48, 80)
    x = np.zeros((COILS, *shape), np.complex64)
    x[..., 20:60] = maps() * head()
    ismrmrd(tmp_path / "k.h5", [(0, y, fft2(x)[:, y], 0) for y in range(48)], header(48, 80, rx=40))
    scan = read_scan(tmp_path / "k.h5")
    assert scan.shape == SHAPE and scan.spacing[:2] == (2, 2)
    np.testing.assert_allclose(ifft2(scan.kspace(0)), maps() * head(), atol=1e-5)
    white = np.random.default_rng(0).standard_normal((1, *shape)) + 0j
    assert np.std(without_oversampling(white, 2, 40)) == pytest.approx(1, abs=0.03)


def test_a_radial_scan_has_a_trajectory(tmp_path):
    k = np.linspace(-0.5, 0.49, 32)
    spokes = [np.stack([k * np.cos(a), k * np.sin(a)], -1) for a in (0.0, 1.0)]  # x, y
    data = [np.full((2, 32), 1 + n, np.complex64) for n in range(2)]
    ismrmrd(tmp_path / "k.h5", [(0, n, d, 0) for n, d in enumerate(data)], header(48, 40, trajectory="radial"),
            trajectory=spokes)  # fmt: skip
    np.savez(tmp_path / "k.npz", kspace=np.stack(data, 1), trajectory=np.stack(spokes))
    for scan in (read_scan(tmp_path / "k.h5"), read_scan(tmp_path / "k.npz", matrix=(48, 40))):
        assert scan.shape == (48, 40) and scan.coils == 2
        np.testing.assert_allclose(scan.trajectory, np.concatenate(spokes)[:, ::-1], atol=1e-6)
        np.testing.assert_array_equal(scan.kspace(0), np.concatenate(data, 1))
    refused(tmp_path / "k.npz", "no size of the picture")  # two spokes do not fill the centre
    assert read_scan(tmp_path / "k.h5", matrix=(32, 30)).shape == (32, 30)
    np.savez(tmp_path / "k.npz", kspace=np.stack(data, 1), trajectory=np.stack(spokes) * np.nan)
    refused(tmp_path / "k.npz", "NaN or infinite values in the trajectory")


@pytest.mark.parametrize(("unit", "scale"), [("radians", 2 * np.pi), ("cycles per field of view", 40)])
def test_the_unit_of_a_trajectory_is_seen(tmp_path, unit, scale):
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 2))
    points[0] = 0.499
    np.savez(tmp_path / "k.npz", kspace=np.ones(100, np.complex64), trajectory=points * scale)
    scan = read_scan(tmp_path / "k.npz", matrix=(40, 40))
    assert unit in scan.axes
    np.testing.assert_allclose(scan.trajectory, points[:, ::-1], atol=1e-6)


def test_nifti_of_magnitude_and_phase_comes_back_as_it_was(tmp_path):
    x = head()
    affine = np.array([[-2, 0, 0, 10], [0, 0, 4, 5], [0, 3, 0, 1], [0, 0, 0, 1.0]])
    volume = np.stack([np.abs(x).T, 2 * np.abs(x).T], -1)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), affine), tmp_path / "m.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.stack([np.angle(x).T] * 2, -1).astype(np.float32), affine), tmp_path / "p.nii")
    scan = read_scan(tmp_path / "m.nii.gz", phase=tmp_path / "p.nii")
    assert scan.pictured and scan.shape == SHAPE
    np.testing.assert_allclose(scan.spacing, (3, 2, 4))
    np.testing.assert_allclose(ifft2(scan.kspace(1))[0], 2 * x, atol=1e-5)
    for name in ("out.nii.gz", "out.nii"):
        write_volume(tmp_path / name, (2, *SHAPE), lambda i: np.abs(ifft2(scan.kspace(i)))[0], scan)
        back = nibabel.load(tmp_path / name)
        np.testing.assert_allclose(back.get_fdata(), volume, atol=1e-5)
        np.testing.assert_allclose(back.affine, affine, atol=1e-5)
        np.testing.assert_allclose(back.header.get_zooms(), (2, 3, 4))


def test_four_dimensions_in_nifti_are_samples_last(tmp_path):
    np.save(tmp_path / "k.npy", kspace(slices=3))
    scan = read_scan(tmp_path / "k.npy")
    values = np.random.default_rng(0).random((2, 3, *SHAPE)).astype(np.float32)
    write_volume(tmp_path / "o.nii.gz", values.shape, lambda i: values.reshape(-1, *SHAPE)[i], scan)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "o.nii.gz").get_fdata(), values.transpose(3, 2, 1, 0))


def test_only_the_slice_that_is_asked_for_is_read(tmp_path, monkeypatch):
    fastmri(tmp_path / "k.h5", kspace(slices=6))
    read, get = [], h5py.Dataset.__getitem__

    def watched(self, index, *rest):
        found = get(self, index, *rest)
        read.append(found.nbytes)
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watched)
    scan = read_scan(tmp_path / "k.h5")
    read.clear()
    scan.kspace(4)
    assert sum(read) == COILS * SHAPE[0] * SHAPE[1] * 8


def test_a_volume_larger_than_memory_is_not_held(tmp_path):
    # 40 GB of zeros that take no place on the disk, but for one slice.
    k = kspace()
    shape = (650_000, *k.shape)
    whole = np.lib.format.open_memmap(tmp_path / "k.npy", "w+", np.complex64, shape)
    whole[325_000] = k
    whole[5] = 2 * k
    del whole
    scan = read_scan(tmp_path / "k.npy")
    np.testing.assert_array_equal(scan.kspace(5), 2 * k)


# What is wrong with a file, and what is said.


def test_wrong_order_of_axes_is_said_in_words(tmp_path):
    np.save(tmp_path / "k.npy", kspace())
    refused(tmp_path / "k.npy", r"energy along y \(4 long\).*not around zero frequency.*y 4.*--axes", axes="y,coil,x")
    refused(tmp_path / "k.npy", "axes of 4 x 48 x 40 numbers, named coil,y", axes="coil,y")
    refused(tmp_path / "k.npy", "named coil,y,z; wanted a name for each", axes="coil,y,z")
    np.save(tmp_path / "k.npy", np.zeros((2, 3, 4, 5, 6), np.complex64))
    refused(tmp_path / "k.npy", "2 x 3 x 4 x 5 x 6 numbers; wanted two to four axes")


def test_pictures_are_no_kspace(tmp_path):
    np.save(tmp_path / "x.npy", maps() * head())
    refused(tmp_path / "x.npy", "--image")
    np.testing.assert_allclose(read_scan(tmp_path / "x.npy", image=True).kspace(0), fft2(maps() * head()), atol=1e-5)


def test_real_numbers_are_no_kspace(tmp_path):
    np.save(tmp_path / "k.npy", np.abs(kspace()))
    refused(tmp_path / "k.npy", "real numbers; wanted k-space, which is complex")


def test_nan_is_said_by_line(tmp_path):
    k = kspace(slices=2)
    k[1, 2, 17] = np.nan
    np.save(tmp_path / "k.npy", k)
    refused(tmp_path / "k.npy", r"NaN or infinite values in 1 of 48 lines of slice 1 \(y = 17\)")
    k = kspace(slices=2)
    k[0, :, :, 3] = np.inf
    np.save(tmp_path / "k.npy", k)
    refused(tmp_path / "k.npy", r"in 1 of 40 lines of slice 0 \(x = 3\)")


def test_no_coils_and_too_many(tmp_path):
    np.save(tmp_path / "k.npy", np.zeros((0, *SHAPE), np.complex64))
    refused(tmp_path / "k.npy", "zero coils", axes="coil,y,x")
    refused(tmp_path / "k.npy", "zero coils")
    np.save(tmp_path / "k.npy", kspace(shape=(200, 16)))
    refused(tmp_path / "k.npy", "200 coils: y 4, coil 200, x 16", axes="y,coil,x")


def test_all_zero(tmp_path):
    np.save(tmp_path / "k.npy", np.zeros((COILS, *SHAPE), np.complex64))
    refused(tmp_path / "k.npy", "all of it is zero")


def test_truncated_and_damaged_files(tmp_path):
    fastmri(tmp_path / "k.h5", kspace(slices=8))
    whole = (tmp_path / "k.h5").read_bytes()
    (tmp_path / "k.h5").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "k.h5", "damaged or incomplete HDF5 file.*truncated")
    cfl(tmp_path / "k.cfl", kspace().transpose(1, 2, 0))
    (tmp_path / "k.cfl").write_bytes((tmp_path / "k.cfl").read_bytes()[:-8])
    refused(tmp_path / "k.cfl", "61432 bytes in k.cfl, but k.hdr says 48 x 40 x 4")
    (tmp_path / "k.hdr").write_text("# Dimensions\nmany\n")
    refused(tmp_path / "k.cfl", "no dimensions in it")
    (tmp_path / "k.hdr").unlink()
    refused(tmp_path / "k.cfl", "k.hdr: no such file")
    for name, start in (("k.npy", b"\x93NUMPY\x01"), ("k.npz", b"PK\x03\x04"), ("k.nii.gz", b"\x1f\x8b\x08"),
                        ("k.mat", b"MATLAB 5.0 MAT-file".ljust(200))):  # fmt: skip
        (tmp_path / name).write_bytes(start + bytes(40))
        refused(tmp_path / name, "damaged or incomplete")
    (tmp_path / "k.txt").write_text("no scan")
    refused(tmp_path / "k.txt", "not a scan")
    refused(tmp_path / "k.h6", "no such file.*Did you mean k.h5")


def test_masks_and_maps_that_do_not_match(tmp_path):
    np.save(tmp_path / "k.npy", kspace())
    scan = read_scan(tmp_path / "k.npy")

    def said(read, array, words):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(InputError, match=words):
            read(tmp_path / "a.npy", scan)

    said(read_mask, np.ones((40, 48)), "a mask of 40 x 48; wanted 48 x 40.*Transpose")
    said(read_mask, np.ones(40), "a mask of 40; wanted 48 x 40")
    said(read_mask, np.zeros((48, 40)), "keeps nothing")
    said(read_maps, maps()[:3], "coil maps of 3 x 48 x 40; wanted 4 x 48 x 40")
    np.save(tmp_path / "a.npy", np.arange(48) % 2)
    assert read_mask(tmp_path / "a.npy", scan)[:, 0].tolist() == [False, True] * 24
    np.save(tmp_path / "a.npy", maps().transpose(1, 2, 0))
    np.testing.assert_array_equal(read_maps(tmp_path / "a.npy", scan)[0], maps())
