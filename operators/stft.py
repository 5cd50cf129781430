"""Audio as frames of frequencies: the short-time Fourier transform as a tight frame, and compression of its magnitudes.

Audio is `(B, 1, T)`; its transform `(B, 2, F, N)`, real and imaginary part of `F` frequencies in `N` frames.

The transform is an isometry, `||S x|| = ||x||` in real numbers: it is orthonormal within a frame, with a factor of
`sqrt 2` on all but the lowest and highest frequency since each stands for itself and its conjugate, and any window is
made into its canonical tight one, `w(t) / sqrt(sum_m w(t - m hop)^2)` (Daubechies, Grossmann and Meyer 1986). Audio is
zero before its first and after its last sample, and all frames that touch it are there, so that `S'S = I` up to the
ends. White noise of std sigma on audio has the std sigma in the frames, and about `sigma sqrt(T / (F N))` per number.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.base import LinearOperator, Operator, Shape, ShapeError, check_weights
from operators.linalg import SVD


class _Frames(LinearOperator):
    """The two maps of a tight frame, `analysis` and its transpose `synthesis`; how many frames there are."""

    def __init__(self, length: int, window: int | Tensor, hop: int, *, inverse: bool):
        w = _tight(window, hop)
        n = len(w)
        bins = n // 2 + 1
        count = -(-(length + n - hop) // hop)  # from the first frame that reaches sample 0 to the last that starts by T
        if length < 1:
            raise ShapeError(f"audio of {length} samples cannot be transformed: at least one is needed")
        shapes = ((1, length), (2, bins, count))
        super().__init__(*(reversed(shapes) if inverse else shapes))
        self.length, self.hop = length, hop
        twice = torch.full((bins,), math.sqrt(2), dtype=torch.float64)
        alone = [0, n // 2] if n % 2 == 0 else [0]  # frequencies without a conjugate, whose imaginary part is zero
        twice[alone] = 1
        back = torch.stack([1 / twice, 1 / twice])[..., None]
        back[1, alone] = 0  # on a CPU the inverse FFT ignores it anyway
        self.register_buffer("window", w)
        self.register_buffer("twice", twice[:, None])  # (F, 1)
        self.register_buffer("back", back)  # (2, F, 1)
        self.window: Tensor
        self.twice: Tensor
        self.back: Tensor

    def analysis(self, x: Tensor) -> Tensor:
        n, count = len(self.window), -(-(self.length + len(self.window) - self.hop) // self.hop)
        total = (count - 1) * self.hop + n
        frames = F.pad(x[:, 0], (n - self.hop, total - self.length - n + self.hop)).unfold(-1, n, self.hop)
        X = torch.fft.rfft(frames * self.window.to(x), norm="ortho").mT * self.twice.to(x)  # (B, F, N)
        return torch.stack([X.real, X.imag], 1)

    def synthesis(self, X: Tensor) -> Tensor:
        n = len(self.window)
        re, im = (X * self.back.to(X)).unbind(1)
        frames = torch.fft.irfft(torch.complex(re, im).mT, n=n, norm="ortho") * self.window.to(X)  # (B, N, n)
        total = (frames.shape[1] - 1) * self.hop + n
        x = F.fold(frames.mT, (1, total), (1, n), stride=(1, self.hop))[:, 0]
        return x[..., n - self.hop :][..., : self.length]


class STFT(_Frames):
    """Short-time Fourier transform, `(1, T) -> (2, F, N)`, `S'S = I`.

    Args:
        length: `T`, samples.
        window: its values, or its length in samples for a periodic Hann window; made tight as above. `F` is half its
            length and one.
        hop: samples from each frame to the next.

    Raises:
        ShapeError: no samples.
        ValueError: the hop is not a whole number of at least one, or leaves samples that no window covers.
    """

    def __init__(self, length: int, window: int | Tensor = 510, hop: int = 128):
        super().__init__(length, window, hop, inverse=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.analysis(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.synthesis(y)

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        return b / (alpha + beta)

    def normal(self, x: Tensor) -> Tensor:
        return x

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def svd(self) -> SVD:
        return SVD(
            s=torch.ones(self.length, dtype=torch.float64),
            U=lambda z: self.forward(z.reshape(-1, *self.ishape)),
            Ut=lambda y: self.adjoint(y).flatten(1),
            V=lambda z: z.reshape(-1, *self.ishape),
            Vt=lambda x: x.flatten(1),
        )

    @property
    def H(self) -> LinearOperator:
        return ISTFT(self.length, self.window, self.hop).to(self.window.device)


class ISTFT(_Frames):
    """The inverse transform, `(2, F, N) -> (1, T)`, which is the transpose of `STFT`, for a signal that is frames and
    data that are audio. Its rows are orthonormal, and so are those of `Gap(...) @ ISTFT(...)`.

    Args:
        length: `T`, samples.
        window, hop: as of `STFT`.

    Raises:
        ShapeError, ValueError: as of `STFT`.
    """

    gram = 1.0

    def __init__(self, length: int, window: int | Tensor = 510, hop: int = 128):
        super().__init__(length, window, hop, inverse=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.synthesis(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.analysis(y)

    @property
    def H(self) -> LinearOperator:
        return STFT(self.length, self.window, self.hop).to(self.window.device)


class Compress(Operator):
    """Magnitudes compressed, phases kept: `X -> scale |X|^exponent e^(i phase)`, the form in which speech is learnt.

    A prior in the compressed domain makes audio by `ISTFT(...) @ Compress(...).inverse`. Magnitudes below 1e-8 are
    scaled as 1e-8 is, so that the gradient stays finite.

    Args:
        ishape: `(2, F, N)`.
        exponent, scale: positive. The defaults are those of SGMSE+ (Richter et al. 2023), for audio divided by its
            largest sample and windows of 510 every 128: their scale of 0.15 is that of an STFT without our factors.

    Raises:
        ShapeError: the signal does not have two channels.
        ValueError: the exponent or the scale is not positive.
    """

    def __init__(self, ishape: Shape, exponent: float = 0.5, scale: float = 0.66):
        if len(ishape) < 2 or ishape[0] != 2:
            raise ShapeError(f"Compress takes (2, F, N), real and imaginary part, got {tuple(ishape)}")
        if not (exponent > 0 and scale > 0 and math.isfinite(exponent) and math.isfinite(scale)):
            raise ValueError(f"exponent and scale must be positive numbers, got {exponent} and {scale}")
        super().__init__(ishape, ishape)
        self.exponent, self.scale = exponent, scale

    def forward(self, x: Tensor) -> Tensor:
        power = x.square().sum(1, keepdim=True).clamp(min=1e-16)
        return self.scale * power ** ((self.exponent - 1) / 2) * x

    @property
    def inverse(self) -> Compress:
        """`X -> (|X| / scale)^(1 / exponent) e^(i phase)`."""
        return Compress(self.ishape, 1 / self.exponent, self.scale ** (-1 / self.exponent))


def _tight(window: int | Tensor, hop: int) -> Tensor:
    """The canonical tight window, `(n,)` in float64: its squares at distances of `hop` add up to one."""
    if int(hop) != hop or hop < 1:
        raise ValueError(f"the hop must be a whole number of at least 1, got {hop}")
    w = window.double() if isinstance(window, Tensor) else torch.hann_window(window, dtype=torch.float64)
    if w.ndim != 1 or len(w) == 0 or not bool(torch.isfinite(w).all()):
        raise ValueError(f"a window is one row of finite numbers, got one of shape {tuple(w.shape)}")
    n = len(w)
    squares = F.pad(w.square(), (0, -n % hop)).reshape(-1, hop).sum(0)
    if not float(squares.min()) > 1e-6 * float(squares.max()):
        raise ValueError(
            f"a window of {n} samples every {hop} does not cover all samples: take a hop of at most "
            f"half the window, here {max(n // 2, 1)}"
        )
    return w / squares.repeat(-(-n // hop))[:n].sqrt()
