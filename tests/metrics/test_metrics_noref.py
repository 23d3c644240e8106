"""NIQE and BRISQUE against the tools whose parameters they use.

Recorded with basicsr 1.4.2 (`calculate_niqe(grey, 0, input_order="HW")` on MATLAB's rgb2gray; it computes partly in float32)
and brisque 0.2.0 (`BRISQUE().score(rgb)`, numpy 1.26, scipy 1.11, opencv 4.9, libsvm 3.37). The photographs come with
scikit-image and are in the public domain (astronaut, chelsea, coffee: CC0 or NASA).
"""

import math

import numpy as np
import pytest
import skimage.data
import torch
from scipy import ndimage

from derainzoo.errors import DerainzooError
from derainzoo.metrics import measure
from derainzoo.metrics.brisque import predict
from derainzoo.metrics.color import matlab_grey
from derainzoo.metrics.niqe import niqe
from derainzoo.metrics.nss import moments, normalise_contrast, ratio_of_shape, scale_of_shape
from pictures import picture

PICTURES = {
    "chelsea": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "astronaut": skimage.data.astronaut,
    "even": lambda: picture(1, 200, 300, 1),
    "odd": lambda: picture(2, 195, 387, 0),
    "rough": lambda: picture(3, 321, 481, 2),
}


@pytest.mark.parametrize(
    ("name", "basicsr"),
    [
        ("chelsea", 2.572083313990127),
        ("coffee", 4.058493948520581),
        ("even", 11.618766082329957),
        ("odd", 16.606210823578987),
        ("rough", 25.181975658990492),
    ],
)
def test_niqe_is_basicsr(name: str, basicsr: float) -> None:
    assert measure("noref", PICTURES[name]())["niqe_official"] == pytest.approx(basicsr, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("chelsea", 2.870766629435792),
        ("coffee", 3.0479264284797125),
        ("even", 45.77805808537752),
        ("odd", 72.3135938260144),
        ("rough", 93.04637564271317),
    ],
)
def test_brisque_is_the_package(name: str, package: float) -> None:
    assert measure("noref", PICTURES[name]())["brisque_pypi"] == pytest.approx(package, rel=1e-8)


def test_flat_areas_are_flat() -> None:
    """Large black areas: the tools count rounding noise there, we do not; that moves the third or fourth digit."""
    measured = measure("noref", PICTURES["astronaut"]())
    assert measured["niqe_official"] == pytest.approx(3.065775902584051, rel=1e-3)
    assert measured["brisque_pypi"] == pytest.approx(10.799456640377997, rel=1e-3)
    image = picture(1, 200, 300)
    image[:120, :130] = 255  # one of six blocks is flat; basicsr's float32 has no noise in it either
    assert measure("noref", image)["niqe_official"] == pytest.approx(12.026669786720914, rel=1e-5)


def test_no_rounding_noise_in_flat_areas() -> None:
    levels = torch.arange(256, dtype=torch.float64)
    for scale in (1, 1 / 255):
        for level in levels * scale:
            assert normalise_contrast(level.expand(9, 9), constant=1, border="replicate").eq(0).all()


def test_a_flat_picture_has_no_statistics() -> None:
    measured = measure("noref", np.full((200, 200, 3), 77, dtype=np.uint8))
    assert all(math.isnan(value) for value in measured.values())


@pytest.mark.parametrize("damage", ["noise", "blur"])
def test_damage_is_seen(damage: str) -> None:
    clean = skimage.data.chelsea()
    if damage == "noise":
        noise = np.random.default_rng(0).normal(0, 15, clean.shape)
        damaged = np.clip(clean + noise, 0, 255).astype(np.uint8)
    else:
        damaged = ndimage.uniform_filter(clean, (5, 5, 0))
    before, after = measure("noref", clean), measure("noref", damaged)
    assert after["niqe_official"] > before["niqe_official"] + 1
    assert after["brisque_pypi"] > before["brisque_pypi"] + 10


@pytest.mark.parametrize("size", [(95, 500), (100, 190)])
def test_niqe_needs_two_blocks(size: tuple[int, int]) -> None:
    with pytest.raises(DerainzooError, match=f"two blocks of 96 x 96.*{size[0]} x {size[1]}"):
        niqe(torch.zeros(3, *size, dtype=torch.float64))


def test_a_generalised_gaussian_gives_its_parameters_back() -> None:
    """Samples of known shape and tails, drawn from their definition: |x| = scale * Gamma(1 / shape)^(1 / shape)."""
    rng = np.random.default_rng(0)
    shape = torch.tensor(0.7, dtype=torch.float64)
    size = rng.gamma(1 / 0.7, size=400_000) ** (1 / 0.7)
    right = rng.random(len(size)) < 2.0 / 3.0  # an asymmetric density puts mass in proportion to the scales
    samples = torch.from_numpy(np.where(right, 2.0, -1.0) * size)[None]
    found = moments(samples, zeros_right=True)
    assert (found.left * scale_of_shape(shape)).item() == pytest.approx(1, rel=0.02)
    assert (found.right * scale_of_shape(shape)).item() == pytest.approx(2, rel=0.02)
    assert found.ratio.item() == pytest.approx(ratio_of_shape(shape).item(), rel=0.02)


def test_ratio_of_known_distributions() -> None:
    laplace, normal, wide = ratio_of_shape(torch.tensor([1.0, 2.0, 1e4], dtype=torch.float64)).tolist()
    assert laplace == pytest.approx(1 / 2, rel=1e-12)
    assert normal == pytest.approx(2 / math.pi, rel=1e-12)
    assert wide == pytest.approx(3 / 4, rel=1e-6)


def test_far_from_every_support_vector_only_the_offset_remains() -> None:
    assert predict(torch.full((36,), 1e3, dtype=torch.float64)).item() == pytest.approx(155.845, rel=1e-12)


def test_matlab_grey_rounds() -> None:
    colours = torch.tensor([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.float64)
    assert matlab_grey(colours.T[:, None])[0].tolist() == [255, 76, 150, 29]
