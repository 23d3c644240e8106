"""What the tests of searched networks share."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from derainzoo import create_model


class Candidates(nn.ModuleDict):
    """A slot with everything that may stand there; runs one of them, as a supernet does."""

    def __init__(self, modules: dict[str, nn.Module], active: str) -> None:
        super().__init__(modules)
        self.active = active

    def forward(self, x):
        return self[self.active](x)


def check_derivation(supernet: nn.Module, derived: nn.Module, x: Tensor) -> None:
    """The supernet's state dict less what was not chosen makes the derived network do the same, bit for bit."""
    everything, chosen = supernet.state_dict(), derived.state_dict()
    assert len(everything) > 2 * len(chosen)
    derived.load_state_dict({key: everything[key] for key in chosen})
    with torch.inference_mode():
        assert torch.equal(derived.eval()(x), supernet.eval()(x))


def create_on_meta(name: str, **arguments) -> nn.Module:
    """Shapes without numbers, for counting."""
    with torch.device("meta"):
        return create_model(name, **arguments).eval()


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def macs(net: nn.Module) -> int:
    """Of a network on the meta device, at 256 x 256."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, 256, 256, device="meta"))
    return counter.get_total_flops() // 2
