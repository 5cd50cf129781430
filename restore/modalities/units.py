"""How the numbers of a file become numbers in [0, 1]. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .image_picture import Picture

# A picture whose largest value is below this is stretched: 12 bits of a camera in 16 bits of a file reach 1/16.
LITTLE = 1 / 8


@dataclass(frozen=True)
class Units:
    """`file value = low + (high - low) * value`: how the numbers of a file become numbers in [0, 1]."""

    low: float = 0.0
    high: float = 1.0

    @property
    def scale(self) -> float:
        return self.high - self.low

    def inward(self, data: np.ndarray) -> np.ndarray:
        return data if (self.low, self.high) == (0.0, 1.0) else (data - np.float32(self.low)) / np.float32(self.scale)

    def outward(self, data: np.ndarray) -> np.ndarray:
        return data if (self.low, self.high) == (0.0, 1.0) else data * np.float32(self.scale) + np.float32(self.low)


def own_units(picture: Picture, known: np.ndarray, *, noisy: bool = False, from_zero: bool = False) -> Units:
    """8-bit pictures are used as they are. Others are mapped to [0, 1] if they lie outside of it or fill little of it,
    because a prior knows pictures whose whites are near 1.

    Args:
        known: the values that were measured.
        noisy: what lies a little outside of [0, 1] is noise, so that -1 to 2 is no other range.
        from_zero: zero stays zero, because the noise depends on the brightness.

    Raises:
        InputError: all values are the same; or some are negative and zero is to stay zero.
    """
    low, high = float(known.min()), float(known.max())
    if from_zero and low < 0:
        raise InputError(
            picture.path, f"negative values, down to {low:.4g}", "counts of light, which begin at zero",
            "add what was subtracted, or say --noise gaussian",
        )  # fmt: skip
    lowest, highest = (-1.0, 2.0) if noisy else (0.0, 1.0)
    if picture.depth == "uint8" or (low >= lowest and LITTLE < high <= highest):
        return Units()
    if low >= 0 and (high <= 1 or from_zero):
        low = 0.0
    if low == high:
        raise InputError(picture.path, f"all values are {low:g}", "a picture", "check how it was saved")
    return Units(low, high)
