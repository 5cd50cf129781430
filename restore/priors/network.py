"""A learnt denoiser: a small norm-free U-Net inside the preconditioning of Karras et al.

Preconditioning: Karras, Aittala, Aila, Laine, *Elucidating the Design Space of Diffusion-Based Generative Models*,
NeurIPS 2022, arXiv:2206.00364, Table 1 (column "Ours") and eq. 7. The trunk follows the habits of DRUNet (Zhang et
al., TPAMI 2021, arXiv:2008.13751): residual blocks conv-act-conv without normalisation, strided convolutions between
levels, skips that add. Departures: it is smaller, and the noise level modulates each block (FiLM, Perez et al., AAAI
2018, arXiv:1709.07871) instead of being an input plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Denoiser, per_row
from .covariance import Covariance
from .spectra import SpectralTable


class Embedding(nn.Module):
    """Smooth features of `c_noise = ln(sigma) / 4`, `(B,) -> (B, dim)`."""

    def __init__(self, dim: int):
        super().__init__()
        # Periods from 16 down to 1 in c_noise: no two levels between 1e-3 and 1e2 look alike, none changes abruptly.
        self.register_buffer("frequencies", 2 * math.pi * torch.logspace(-4, 0, 16, base=2.0), persistent=False)
        self.frequencies: Tensor
        self.layers = nn.Sequential(nn.Linear(32, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())

    def forward(self, c_noise: Tensor) -> Tensor:
        phase = c_noise[:, None] * self.frequencies
        return self.layers(torch.cat([phase.cos(), phase.sin()], 1))


class Block(nn.Module):
    """`x + conv(act(scale * conv(x) + shift))`, with `scale` and `shift` read off the noise embedding."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.film = nn.Linear(embedding, 2 * width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight)
        nn.init.zeros_(self.conv2.weight)  # the trunk starts as the identity and stays stable without normalisation
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(x)
        scale, shift = self.film(embedding)[:, :, None, None].to(h.dtype).chunk(2, 1)
        return x + self.conv2(F.relu(torch.addcmul(shift, h, scale + 1)))


class Level(nn.ModuleList):
    """Blocks one after the other."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            x = block(x, embedding)
        return x


class UNet(nn.Module):
    """`F(x, c_noise)` for pictures of any size, `(B, C, H, W) -> (B, C, H, W)`, `C` one of `channels`.

    Every number of channels has its own first and last convolution around one shared trunk: a grey picture copied into
    three channels would carry the same noise three times, which a colour network never saw.

    Args:
        channels: the numbers of channels served.
        widths: features per level; level `k` works at `1 / 2**k` of the resolution.
        blocks: residual blocks per level, on the way down and again on the way up (once at the bottom).
        embedding: size of the noise embedding.
        beside: channels that only come in, after the others.

    Raises:
        ValueError: `widths` and `blocks` name different numbers of levels.
    """

    def __init__(
        self,
        channels: Sequence[int] = (1, 3),
        widths: Sequence[int] = (32, 64, 128, 192),
        blocks: Sequence[int] = (2, 2, 2, 2),
        embedding: int = 256,
        beside: int = 0,
    ):
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(
                f"widths has {len(widths)} levels, blocks has {len(blocks)}: give one number each per level"
            )
        self.channels, self.widths, self.blocks = tuple(channels), tuple(widths), tuple(blocks)
        self.embedding, self.beside = embedding, beside
        self.embed = Embedding(embedding)
        self.stems = nn.ModuleDict({str(c): nn.Conv2d(c + beside, widths[0], 3, padding=1) for c in channels})
        self.heads = nn.ModuleDict({str(c): nn.Conv2d(widths[0], c, 3, padding=1) for c in channels})
        for head in self.heads.parameters():
            nn.init.zeros_(head)

        def level(k: int) -> Level:
            return Level(Block(widths[k], embedding) for _ in range(blocks[k]))

        steps = range(len(widths) - 1)
        self.down = nn.ModuleList(level(k) for k in steps)
        self.shrink = nn.ModuleList(nn.Conv2d(widths[k], widths[k + 1], 2, stride=2, bias=False) for k in steps)
        self.bottom = level(len(widths) - 1)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(widths[k + 1], widths[k], 2, stride=2, bias=False) for k in steps)
        self.up = nn.ModuleList(level(k) for k in steps)

    def hidden(self) -> list[nn.Parameter]:
        """The weights of the convolutions between the stems and the heads."""
        ends = {id(p) for part in (self.stems, self.heads) for p in part.parameters()}
        return [p for p in self.parameters() if p.ndim == 4 and id(p) not in ends]

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        channels, (height, width) = str(x.shape[1] - self.beside), x.shape[2:]
        x = pad_to_multiple(x, 2 ** len(self.shrink))
        e = self.embed(c_noise)
        h = first = self.stems[channels](x)
        skips = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            h = level(h, e)
            skips.append(h)
            h = shrink(h)
        h = self.bottom(h, e)
        for level, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            h = level(grow(h) + skips.pop(), e)
        return self.heads[channels](h + first)[..., :height, :width]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """`x` extended at the bottom and right to a multiple of `multiple`: by reflection, or repetition if too small."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return x
    return F.pad(x, (0, right, 0, bottom), "reflect" if bottom < height and right < width else "replicate")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 have hardware of their own there (AVX512-BF16, AMX; CUDA from Ampere on)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not in every release from 2.4 on
    return device.type == "cpu" and asked is not None and asked()


class EDMDenoiser(Denoiser):
    """`D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)` (arXiv:2206.00364, eq. 7; Table 1), pictures in `[-1, 1]`.

    The network runs in bfloat16 where the hardware has it; the sum above is formed in the dtype of `x`, so that
    rounding is a fraction of `c_out F`, never of the picture. Differentiable in `x` and in the weights.

    Args:
        network: `F`; its numbers of channels are the denoiser's.
        sigma_data: standard deviation of the pictures, in their units.
        sigma_min, sigma_max: the noise levels it is trained for, in the same units.
    """

    shape: tuple[int | None, ...] = (None, None, None)

    def __init__(self, network: UNet, *, sigma_data: float = 0.5, sigma_min: float = 0.002, sigma_max: float = 20.0):
        super().__init__()
        self.network, self.sigma_data, self.sigma_min, self.sigma_max = network, sigma_data, sigma_min, sigma_max
        self.signal_std = sigma_data
        if len(network.channels) == 1:
            self.shape = (network.channels[0], None, None)
        self.table: SpectralTable | None = None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Any height and width; as many channels as one of the network's stems."""
        return len(shape) == 3 and shape[0] in self.network.channels

    def covariance(self, x: Tensor, sigma: float) -> Covariance:
        """Stationary, from the table of what this denoiser gets wrong, if there is one; else the default."""
        return super().covariance(x, sigma) if self.table is None else self.table.covariance(x, sigma)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`(B, C, H, W)`, `sigma` one number or `(B,)`. Raises ValueError where the shape does not fit."""
        if not (x.ndim == 4 and self.accepts(tuple(x.shape[1:]))):
            channels = " or ".join(map(str, self.network.channels))
            raise ValueError(f"this prior takes (B, C, H, W) with {channels} channels, got {tuple(x.shape)}")
        sigma = per_row(sigma, x)
        norm = (sigma**2 + self.sigma_data**2).sqrt()
        own = next(self.network.parameters()).dtype
        inputs = (x / norm).to(own).contiguous(memory_format=torch.channels_last)  # c_in = 1 / norm
        c_noise = (sigma.clamp(min=self.sigma_min).log() / 4).reshape(-1).to(own).expand(x.shape[0])
        with torch.autocast(x.device.type, torch.bfloat16, enabled=has_fast_bf16(x.device) and own == torch.float32):
            f = self.network(inputs, c_noise)
        return (self.sigma_data / norm) ** 2 * x + sigma * self.sigma_data / norm * f.to(x.dtype)  # c_skip, c_out


def compile_networks(prior: Denoiser) -> None:
    """Have `torch.compile` fuse the layers of the `UNet`s in a prior: a quarter less time a call, after a minute for
    each size of picture. Needs a C++ compiler. Results differ by rounding.

    Raises:
        ValueError: there is none in it.
    """
    networks = [module for module in prior.modules() if isinstance(module, UNet)]
    if not networks:
        raise ValueError(f"{type(prior).__name__} holds no network that can be compiled: leave out compile=true")
    for network in networks:
        network.compile(dynamic=False)
