"""PReNet, Restormer and NAFNet, exact against recordings of the published code."""

import numpy as np
import pytest
import torch

import derainzoo
from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import officials
from golden import GOLDEN, fill
from networks import image, small
from official_keys import as_published

# recording -> the network that must reproduce it
RECORDED: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in ("prenet", "prenet_r", "prenet_gru", "prenet_real", "prn", "prn_r")},
    **{name: (name, {}) for name in ("restormer", "nafnet", "nafnet_sidd")},
    "prenet_ablation": ("prenet", {"residual": False}),
    "restormer_odd": (
        "restormer",
        {"dim": 12, "blocks": [1, 2, 1, 3], "refinement": 2, "heads": [1, 2, 3, 4], "expansion": 2.1, "bias_free": True},
    ),
    "nafnet_odd": ("nafnet", {"width": 6, "encoder": [1, 2, 3], "middle": 2, "decoder": [2, 1, 3]}),
}


@pytest.mark.parametrize("recording", RECORDED)
def test_reproduces_the_published_code(recording: str) -> None:
    name, arguments = RECORDED[recording]
    expected = np.load(GOLDEN / "peers.npz")[recording]
    net = derainzoo.create_model(name, **arguments).double().eval()
    known, system = net.state_dict(), derainzoo.model_info(name).system
    shapes = {key: tuple(tensor.shape) for key, tensor in as_published(system, known).items()}
    weights, dead = officials()[system].translate(
        fill(shapes, near_one=lambda key: key.endswith(("temperature", "beta", "gamma"))), known
    )
    assert not dead
    net.load_state_dict(weights)
    with torch.no_grad():
        found = net(image(*expected.shape[-2:], dtype=torch.float64)).numpy()
    assert np.abs(found - expected).max() <= 1e-9 * max(1, np.abs(expected).max())


def test_prenet_stages_are_not_part_of_the_weights() -> None:
    net, x = small("prenet"), image(9, 9)
    longer = derainzoo.create_model("prenet", **{**derainzoo.model_info("prenet").tiny, "iterations": 5}).eval()
    longer.load_state_dict(net.state_dict())
    net.iterations = 5
    with torch.no_grad():
        assert torch.equal(net(x), longer(x))


def test_arguments_that_contradict_each_other_are_named() -> None:
    with pytest.raises(DerainzooError, match="one number of heads per level"):
        derainzoo.create_model("restormer", blocks=[1, 1], heads=[1, 2, 4])
    with pytest.raises(DerainzooError, match="as many encoder as decoder levels"):
        derainzoo.create_model("nafnet", encoder=[1, 1], decoder=[1])
    with pytest.raises(DerainzooError, match=r"unknown recurrence 'lstn'. Did you mean 'lstm'"):
        derainzoo.create_model("prenet", recurrence="lstn")
