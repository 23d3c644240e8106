"""Small instances of networks, and pictures for them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from derainzoo import create_model, model_info


def small(name: str) -> nn.Module:
    """In evaluation mode with every parameter random (as built, a block of NAFNet is the identity)."""
    torch.manual_seed(0)
    net = create_model(name, **model_info(name).tiny).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def image(h: int, w: int, batch: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(7).random((batch, 3, h, w))).to(dtype)


def restored(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def outputs(net: nn.Module, x: Tensor) -> Sequence[Tensor]:
    """What a network gives in training: the image alone, or a named tuple that begins with it."""
    output = net(x)
    return (output,) if isinstance(output, Tensor) else output


def train_step(net: nn.Module, x: Tensor) -> Sequence[Tensor]:
    """Forward and backward in training mode, every output counting; returns the outputs."""
    found = outputs(net.train(), x)
    sum(o.square().mean() for o in found).backward()
    return found
