"""What a network or a step of a search costs: parameters, and memory that grows with the images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def count_parameters(module: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(p.numel() for p in module.parameters())


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
