"""How data are made: operators, their noise, and the laws they obey. Knows nothing of priors.

Names are imported when first used, so that a program that needs none of them does not load torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    **dict.fromkeys(("Operator", "LinearOperator", "Identity", "ShapeError"), "operators.base"),
    **dict.fromkeys(("SVD", "ConvergenceError"), "operators.linalg"),
    **dict.fromkeys(("HStack", "VStack"), "operators.compose"),
    **dict.fromkeys(("Mask", "Blur", "Downsample", "Grayscale", "SubsampledOrthogonal"), "operators.image"),
    "Diagonal": "operators.diagonal",
    **dict.fromkeys(("STFT", "ISTFT", "Compress"), "operators.stft"),
    **dict.fromkeys(("Gap", "Lowpass", "Resample", "Reverb"), "operators.speech"),
    **dict.fromkeys(("Clip", "Quantize", "JPEG", "Magnitude"), "operators.nonlinear"),
    **dict.fromkeys(("FFT2", "Coils", "sense"), "operators.mri"),
    **dict.fromkeys(("NUFFT", "SenseNUFFT"), "operators.nufft"),
    **dict.fromkeys(("NoiseModel", "Gaussian", "Censored", "Poisson", "Gamma", "PoissonGaussian"), "operators.noise"),
    **dict.fromkeys(("Stationary", "NMF"), "operators.coloured"),
    **dict.fromkeys(("from_deepinv", "to_deepinv", "noise_from_deepinv", "noise_to_deepinv"), "operators.interop"),
    **dict.fromkeys(("assert_laws", "assert_linear", "assert_adjoint"), "operators.check"),
    **dict.fromkeys(("assert_solve", "assert_pinv", "assert_svd"), "operators.check"),
    "Draws": "operators.random",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'operators' has no attribute {name!r}")
