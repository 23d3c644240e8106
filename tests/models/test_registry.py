"""The facts that the registry states about every network are recounted, and its errors help."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from derainzoo.errors import DerainzooError
from derainzoo.models.registry import create_model, list_models, model_info


def count_macs(net: torch.nn.Module, size: int = 256) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(torch.zeros(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", list_models())
def test_stated_parameters_and_operations_are_exact(name):
    with torch.device("meta"):
        net = create_model(name).eval()
    assert sum(p.numel() for p in net.parameters()) == model_info(name).params
    assert count_macs(net) == model_info(name).macs


@pytest.mark.parametrize("name", list_models())
def test_card_is_complete(name):
    info = model_info(name)
    assert info.summary.endswith(".")
    assert info.paper.url.startswith("https://")
    assert info.tasks
    assert set(info.tiny) <= set(info.arguments)


def test_listing_imports_no_torch():
    code = "import sys, derainzoo; derainzoo.list_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_by_pattern_and_task():
    assert list_models("elf*") == ["elf", "elf_head", "elf_lw"]
    assert "elf" in list_models(task="lowlight")
    assert list_models("no such*") == []


def test_misspelt_name_is_answered_with_close_ones():
    with pytest.raises(DerainzooError, match="unknown network 'efl'.*Did you mean 'elf'"):
        create_model("efl")


def test_misspelt_argument_is_answered_with_close_ones():
    with pytest.raises(DerainzooError, match="unknown argument of network 'elf' 'dmi'.*Did you mean 'dim'"):
        create_model("elf", dmi=8)
