"""What a pass needs, and the tile that follows from it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import derainzoo
from derainzoo.inference.memory import _UNKNOWN, CPU_BUDGET, bytes_per_pixel, free_memory, largest_tile
from derainzoo.models import pretrained


def test_tensors_that_live_at_once_are_counted():
    # at the peak, in float32: the picture, the result of the first layer (4 channels), and that of the second (8)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1))
    assert bytes_per_pixel(net) == 4 * (3 + 4 + 8)


def test_in_place_operations_and_views_cost_nothing():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Flatten(2), nn.Unflatten(2, (512, 512)))
    assert bytes_per_pixel(net) == 4 * (3 + 4)


@pytest.mark.parametrize("name", ["elf_lw", "restormer", "prenet"])
def test_networks_are_counted_and_left_as_they_are(name):
    net = derainzoo.create_model(name, **derainzoo.model_info(name).tiny).train()
    assert 10 < bytes_per_pixel(net) != _UNKNOWN
    assert net.training
    assert all(p.device.type == "cpu" for p in net.parameters())


def test_what_cannot_be_counted_is_guessed():
    class Asks(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    assert bytes_per_pixel(Asks()) == _UNKNOWN


def test_a_picture_that_fits_is_taken_whole():
    assert largest_tile(1000, 1000 * 500 * 300, 500, 300) is None
    assert largest_tile(1000, 1000 * 500 * 300 - 1, 500, 300) == 384
    assert largest_tile(1000, 1, 500, 300) == 64


def test_free_memory_of_the_cpu_is_bounded():
    assert 0 < free_memory(torch.device("cpu")) <= CPU_BUDGET


MEASURE = Path(__file__).parents[2] / "tools/measure_predict.py"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not MEASURE.is_file(), reason="needs the script of a checkout")
def test_a_photograph_of_24_megapixels_needs_less_than_4_gib():
    """File to file with the network that is used when none is named: four minutes of one core."""
    done = subprocess.run(
        [sys.executable, MEASURE, "photo", str(pretrained.default()), "24"], capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    assert measured["size"] == [5657, 4243]
    assert 1 < measured["GiB"] < 4
