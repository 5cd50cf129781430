"""deepinv in both directions: its physics as our operators, our operators as its physics.

deepinv's masks keep zeros where nothing was measured, ours are restrictions: an operator from deepinv keeps its zeros,
so its `y` holds entries that carry no data. Build a `Mask` where the number of data counts (chi-square, sigma).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators.base import LinearOperator, Operator, Shape, ShapeError
from operators.noise import Gamma, Gaussian, NoiseModel, Poisson, PoissonGaussian


class DeepinvOperator(Operator):
    """`physics.A`, without its noise and its sensor. Made by `from_deepinv`."""

    def __init__(self, physics: Any, ishape: Shape):
        y = physics.A(torch.zeros(1, *ishape, dtype=_dtype(physics, torch.float32), device=_device(physics)))
        name = type(physics).__name__
        if not isinstance(y, Tensor):
            raise ShapeError(f"{name} gives a {type(y).__name__}: convert its parts one by one and use VStack")
        if y.is_complex():
            raise ShapeError(f"{name} gives complex data: wrap it so that they are two real channels")
        super().__init__(ishape, tuple(y.shape[1:]))
        self.physics = physics

    def forward(self, x: Tensor) -> Tensor:
        return self.physics.A(x.to(_dtype(self.physics, x.dtype))).to(x.dtype)


class DeepinvLinearOperator(DeepinvOperator, LinearOperator):
    """A linear physics with its own adjoint; `solve` and `pinv` are ours. Made by `from_deepinv`."""

    def adjoint(self, y: Tensor) -> Tensor:
        return self.physics.A_adjoint(y.to(_dtype(self.physics, y.dtype))).to(y.dtype)


def from_deepinv(physics: Any, ishape: Shape) -> Operator:
    """A deepinv physics as an operator, linear when it is a `LinearPhysics`.

    Args:
        physics: `deepinv.physics.Physics`. It computes in its own precision: `physics.double()` for float64.
        ishape: of the signals, without the batch.

    Raises:
        TypeError: not a deepinv physics.
        ShapeError: its measurements are not one real tensor.
    """
    from deepinv.physics import LinearPhysics, Physics

    if not isinstance(physics, Physics):
        raise TypeError(f"a deepinv.physics.Physics is needed, got {type(physics).__name__}")
    return (DeepinvLinearOperator if isinstance(physics, LinearPhysics) else DeepinvOperator)(physics, tuple(ishape))


def to_deepinv(operator: Operator, noise: NoiseModel | None = None) -> Any:
    """An operator, and the noise of its measurements, as a deepinv physics.

    A linear operator becomes a `LinearPhysics` whose `A_dagger` and `prox_l2` are our `pinv` and `solve`.

    Raises:
        TypeError: deepinv has no such noise.
    """
    from deepinv.physics import LinearPhysics, Physics, ZeroNoise

    noise_model = ZeroNoise() if noise is None else noise_to_deepinv(noise)
    if not isinstance(operator, LinearOperator):
        physics = Physics(A=lambda x, **_: operator(x), noise_model=noise_model)
        physics.add_module("operator", operator)
        return physics

    class OperatorPhysics(LinearPhysics):  # here because deepinv is slow to import
        def __init__(self, operator: LinearOperator):
            super().__init__(img_size=operator.ishape, noise_model=noise_model)
            self.operator = operator

        def A(self, x: Tensor, **kwargs: Any) -> Tensor:
            return self.operator(x)

        def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
            return self.operator.adjoint(y)

        def A_dagger(self, y: Tensor, **kwargs: Any) -> Tensor:
            return self.operator.pinv(y)

        def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float, **kwargs: Any) -> Tensor:
            """`argmin_x gamma / 2 ||A x - y||^2 + 1 / 2 ||x - z||^2`."""
            gamma = float(gamma)  # deepinv gives numbers as tensors of one entry
            b = gamma * self.operator.adjoint(y)
            return self.operator.solve(b if z is None else b + z, gamma, 1.0)

    return OperatorPhysics(operator)


def noise_to_deepinv(noise: NoiseModel) -> Any:
    """Our noise as deepinv's.

    Raises:
        TypeError: deepinv has no such noise.
    """
    from deepinv.physics import GammaNoise, GaussianNoise, PoissonGaussianNoise, PoissonNoise

    made: dict[type[NoiseModel], Callable[[Any], Any]] = {
        Gaussian: lambda n: GaussianNoise(n.sigma),
        Poisson: lambda n: PoissonNoise(n.gain, clip_positive=True),
        Gamma: lambda n: GammaNoise(n.k),
        PoissonGaussian: lambda n: PoissonGaussianNoise(n.gain, n.sigma, clip_positive=True),
    }
    if type(noise) not in made:
        raise TypeError(f"deepinv has no noise like {noise!r}; it has {', '.join(c.__name__ for c in made)}")
    return made[type(noise)](noise)


def noise_from_deepinv(noise: Any) -> NoiseModel:
    """deepinv's noise as ours.

    Raises:
        TypeError: we have no such noise.
        ValueError: its parameters are not one positive number each.
    """
    from deepinv.physics import GammaNoise, GaussianNoise, PoissonGaussianNoise, PoissonNoise

    made: dict[type, Callable[[], NoiseModel]] = {
        GaussianNoise: lambda: Gaussian(_number(noise.sigma)),
        PoissonNoise: lambda: Poisson(_number(noise.gain)),
        GammaNoise: lambda: Gamma(_number(noise.l)),
        PoissonGaussianNoise: lambda: PoissonGaussian(_number(noise.gain), _number(noise.sigma)),
    }
    if type(noise) not in made:
        raise TypeError(
            f"there is no counterpart of deepinv's {type(noise).__name__}; "
            f"known are {', '.join(c.__name__ for c in made)}"
        )
    if isinstance(noise, PoissonNoise) and not bool(noise.normalize):
        raise ValueError("PoissonNoise(normalize=False) gives counts; convert PoissonNoise(normalize=True)")
    return made[type(noise)]()


def _number(value: Any) -> float:
    value = torch.as_tensor(value)
    if value.numel() != 1:
        raise ValueError(f"the noise must be the same for all rows, got parameters of shape {tuple(value.shape)}")
    return float(value)


def _dtype(physics: Any, otherwise: torch.dtype) -> torch.dtype:
    return next((b.dtype for b in physics.buffers() if b.is_floating_point()), otherwise)


def _device(physics: Any) -> torch.device:
    return next((b.device for b in physics.buffers()), torch.device("cpu"))
