"""What a network or a step of a search costs: parameters, multiply-adds, and memory that grows with the images."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from derainzoo.models.registry import create_model


def count_parameters(module: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(p.numel() for p in module.parameters())


def count(name: str, arguments: Mapping[str, Any] | None, size: tuple[int, int]) -> tuple[int, int]:
    """Parameters, and multiply-adds of one image; nothing is computed for it."""
    with torch.device("meta"):
        net, image = create_model(name, **(arguments or {})).eval(), torch.empty(1, 3, *size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(image)
    return count_parameters(net), counter.get_total_flops() // 2


def saved_bytes(net: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that `forward` keeps for its backward, the network's own parameters and buffers left out.

    The same on every device and in every run; memory that a process shows besides is the allocator's and the kernels' affair.
    """
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
