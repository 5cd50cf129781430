"""How recordings are damaged: dropped samples, a narrow band, a room.

For clipping and few bits see `operators.nonlinear`: `Clip((1, T), -c, c)`, whose likelihood asks of a clipped sample
only that it is beyond the limit, and `Quantize((1, T), bits, -1, 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from operators import filters, valid
from operators.base import LinearOperator, Shape, ShapeError
from operators.image import _Delegate
from operators.linalg import tolerance


class Gap(LinearOperator):
    """Samples of audio, or frames of its transform, that are missing: a restriction, so they are not in `y`.

    Args:
        ishape: `(1, T)` or `(2, F, N)`.
        spans: `(start, stop)` of each gap along the last axis, `stop` not in it.

    Raises:
        ValueError: a span that is empty or not within the signal, or nothing is left.
    """

    gram = 1.0

    def __init__(self, ishape: Shape, spans: Sequence[tuple[int, int]]):
        length = ishape[-1]
        kept = torch.ones(length, dtype=torch.bool)
        for start, stop in spans:
            if not 0 <= start < stop <= length:
                raise ValueError(f"a gap from {start} to {stop} is not within the signal, 0 to {length}")
            kept[start:stop] = False
        if not bool(kept.any()):
            raise ValueError("the gaps leave nothing of the signal, so there is nothing to restore from")
        super().__init__(ishape, (*ishape[:-1], int(kept.sum())))
        self.register_buffer("kept", kept.nonzero().flatten())
        self.kept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(-1, self.kept)

    def adjoint(self, y: Tensor) -> Tensor:
        return y.new_zeros(*y.shape[:-1], self.ishape[-1]).index_copy(-1, self.kept, y)


class Lowpass(filters.CircularFilter):
    """What is left of audio below a frequency, at the same sampling rate.

    The filter is a Hann-windowed sinc without delay, 6 dB down at the cutoff. Audio goes on at its other end: pad a
    recording with half a filter of zeros where that matters.

    Args:
        length: `T`, samples.
        cutoff: as a share of half the sampling rate, between 0 and 1.
        taps: length of the filter, odd; the band from pass to stop is about `4 / taps` of half the sampling rate.

    Raises:
        ShapeError: the filter is longer than the audio.
        ValueError: a cutoff that is not between 0 and 1, or taps that are not an odd number.
    """

    def __init__(self, length: int, cutoff: float, taps: int = 129):
        super().__init__(_sinc(cutoff, taps, length)[None], (1, length))


class Resample(filters.CircularFilter):
    """A recording at a rate that is `factor` times lower, to be undone by bandwidth extension.

    Sample `i` of `y` lies on sample `factor i` of `x`. The filter before is that of `Lowpass`, with its cutoff at
    `rolloff` of what the lower rate can carry; audio goes on at its other end.

    Args:
        length: `T`, samples, a multiple of the factor.
        factor: how many times fewer samples `y` has.
        rolloff: above 0, at most 1.
        zeros: zero crossings of the sinc on each side.

    Raises:
        ShapeError: the length is not a multiple of the factor, or less than that of the filter.
        ValueError: a factor that is not a whole number of at least two, or another argument out of range.
    """

    def __init__(self, length: int, factor: int, rolloff: float = 0.9, zeros: int = 32):
        if int(factor) != factor or factor < 2:
            raise ValueError(f"the factor must be a whole number of at least 2, got {factor}")
        if length % factor:
            raise ShapeError(
                f"{length} samples cannot be made {factor} times fewer: cut them to {length // factor * factor}"
            )
        if zeros < 1 or not 0 < rolloff <= 1:
            raise ValueError(f"zeros must be at least 1 and rolloff between 0 and 1, got {zeros} and {rolloff}")
        taps = _sinc(rolloff / factor, 2 * math.ceil(zeros * factor / rolloff) + 1, length - factor + 1)
        late = torch.cat([taps.new_zeros(factor - 1), taps])  # from the middle of a block to its first sample
        super().__init__(late[None], (1, length), (1, factor))


class Reverb(_Delegate):
    """Speech in a room whose response is known, `y = h * x`.

    Args:
        response: `h`, `(k,)`, from the moment of the sound on. Used as given.
        length: `T`, samples of dry speech.
        boundary: `full`: there is silence before and after, and the recording has all of the tail, `T + k - 1` samples.
            `valid`: the recording begins and ends in the middle: `T - k + 1` samples, the dry speech reaching back
            before it by the response.

    `solve` is by conjugate gradients on the `k - 1` samples at the ends, fifty to a hundred iterations for a room. It
    and what is made of it compute in float64, for precise data and the notches of a room cost single precision all
    digits, but iterate to the tolerance of the precision they were asked in.

    Raises:
        ShapeError: the response is not one row of numbers, or for `valid` longer than the speech.
        ValueError: an unknown boundary, or a response that is zero or holds NaN or infinite values.
    """

    def __init__(self, response: Tensor, length: int, boundary: Literal["full", "valid"] = "full"):
        h = torch.as_tensor(response).double()
        if h.ndim != 1 or len(h) == 0:
            raise ShapeError(f"a response of shape (k,) is needed, got {tuple(h.shape)}: choose one channel")
        if not bool(torch.isfinite(h).all()) or not bool(h.any()):
            raise ValueError("the response is zero or holds NaN or infinite values")
        if boundary == "full":
            super().__init__(valid.FullFilter(h[None], (1, length)))
        elif boundary == "valid":
            if len(h) > length:
                raise ShapeError(f"the response ({len(h)} samples) is longer than the speech ({length}): cut it")
            super().__init__(filters.cropped(h[None], (1, length)) or valid.ValidFilter(h[None], (1, length)))
        else:
            raise ValueError(f"boundary must be 'full' or 'valid', got {boundary!r}")

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        if isinstance(self.core, valid.FullFilter | valid.ValidFilter):
            return self.core.solve(b.double(), alpha, beta, tolerance(b.dtype)).to(b)
        return super().solve(b.double(), alpha, beta).to(b)

    def pull(self, r: Tensor, beta: float) -> Tensor:
        if isinstance(self.core, valid.FullFilter | valid.ValidFilter):
            return self.core.solve(self.adjoint(r.double()), 1.0, beta, tolerance(r.dtype)).to(r)
        return super().pull(r.double(), beta).to(r)

    def pinv(self, y: Tensor) -> Tensor:
        return super().pinv(y.double()).to(y)


def _sinc(cutoff: float, taps: int, length: int) -> Tensor:
    """The impulse response of a low-pass filter, `(taps,)`, its sum one."""
    if not 0 < cutoff < 1:
        raise ValueError(f"the cutoff must be between 0 and 1 of half the sampling rate, got {cutoff}")
    if taps % 2 == 0 or taps < 3:
        raise ValueError(f"taps must be an odd number of at least 3, got {taps}")
    if taps > length:
        raise ShapeError(f"the filter ({taps} samples) is longer than the audio ({length}): take fewer taps")
    t = torch.arange(taps, dtype=torch.float64) - taps // 2
    h = torch.special.sinc(cutoff * t) * torch.hann_window(taps + 2, periodic=False, dtype=torch.float64)[1:-1]
    return h / h.sum()
