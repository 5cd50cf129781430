"""What the shipped calibration is fitted on: whole parts of pictures, and conditions that serve what is tested."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from calibrate_photos import BUNDLED, CONDITIONS, TESTED, crops

from restore.uncertainty.calibration import NEAR


@pytest.mark.parametrize("size", [(512, 512), (640, 427), (300, 451), (100, 90)])
def test_crops_are_parts_that_do_not_overlap_every_other_in_grey(size):
    values = np.arange(size[0] * size[1]).reshape(size[1], size[0])
    picture = Image.fromarray(np.stack([values >> 16, values >> 8 & 255, values & 255], -1).astype(np.uint8))
    found = crops(picture, 4, 128)
    assert [c.mode for c in found] == ["RGB", "L", "RGB", "L"]
    side = min(128, *size)
    assert all(min(c.size) == side for c in found)
    if side == 128:
        first, third = (np.asarray(c).astype(int) @ [65536, 256, 1] for c in found[::2])
        assert first.shape == (128, 128) and not np.intersect1d(first, third).size


def test_what_is_fitted_is_there_and_serves_what_is_tested():
    folder = Path(data.__file__).parent
    assert all(list(folder.glob(f"{name}.*")) for name in BUNDLED)
    for operator, noise in TESTED:
        near = [n for o, n in CONDITIONS if o == operator and max(n, noise) <= NEAR * min(n, noise)]
        assert near, f"nothing near {operator}, noise {noise}"
