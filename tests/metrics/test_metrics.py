"""Full-reference protocols: against MATLAB scripts run in Octave, against scikit-image and scipy, and by their properties."""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage import img_as_ubyte
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from derainzoo.errors import DerainzooError
from derainzoo.metrics import PROTOCOLS, get_protocol, measure, measure_each, metric_names
from derainzoo.metrics.color import full_range_luma, quantise, studio_luma, studio_luma_rounded
from derainzoo.metrics.psnr import psnr
from derainzoo.metrics.ssim import downsample_box, downsampling_factor, ssim
from pictures import picture, rainy

FULL_REFERENCE = [name for name, protocol in PROTOCOLS.items() if protocol.needs_target]
SIZES = [(11, 11), (64, 97), (75, 139)]  # one window, one band of rows and more


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def as_float64(image: np.ndarray) -> torch.Tensor:
    return as_tensor(image).double()


def pair(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    clean = picture(seed, height, width)
    return rainy(seed, clean), clean


def matlab_y(image: np.ndarray) -> np.ndarray:
    return image @ np.array([65.481, 128.553, 24.966]) / 255 + 16


# against the published scripts


@pytest.mark.shared
def test_octave_runs_of_the_official_scripts(shared: Path) -> None:
    rows = list(csv.DictReader((shared / "golden/metrics/octave_truth.tsv").open(), delimiter="\t"))
    assert {row["protocol"] for row in rows} == {"y8", "y", "mhnet_cal"}
    for row in rows:
        folder, protocol = shared / "data/metric_pairs" / row["set"], row["protocol"]
        output, target = (np.array(Image.open(folder / kind / row["file"])) for kind in ("restored", "target"))
        measured = measure(protocol, output, target)
        # MHNet's script computes in float32
        tolerance = 1e-6 if protocol == "mhnet_cal" else 1e-11
        assert measured[f"psnr_{protocol}"] == pytest.approx(float(row["psnr"]), rel=tolerance), row
        assert measured[f"ssim_{protocol}"] == pytest.approx(float(row["ssim"]), rel=tolerance), row


# against independent implementations


@pytest.mark.parametrize("size", SIZES)
def test_y8_is_scikit_image_on_matlab_luma(size: tuple[int, int]) -> None:
    output, target = pair(1, *size)
    luma = [np.floor(matlab_y(image) + 0.5) for image in (output, target)]
    measured = measure("y8", output, target)
    assert measured["psnr_y8"] == pytest.approx(peak_signal_noise_ratio(luma[1], luma[0], data_range=255), rel=1e-12)
    assert measured["ssim_y8"] == pytest.approx(
        structural_similarity(*luma, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255), rel=1e-11
    )


def test_rgb_is_scikit_image() -> None:
    output, target = pair(2, 70, 90)
    measured = measure("rgb", output, target)
    expected = structural_similarity(
        output, target, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
    )
    assert measured["psnr_rgb"] == pytest.approx(peak_signal_noise_ratio(target, output), rel=1e-12)
    assert measured["ssim_rgb"] == pytest.approx(expected, rel=1e-11)


def plain_ssim(x: np.ndarray, y: np.ndarray, crop: int) -> float:
    """The formula as one writes it down, with five two-dimensional filters, borders replicated and `crop` pixels cut off."""
    ramp = np.arange(11) - 5
    window = np.exp(-(ramp[:, None] ** 2 + ramp**2) / 4.5)

    def blur(image: np.ndarray) -> np.ndarray:
        return ndimage.correlate(image, window / window.sum(), mode="nearest")

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 6.5025, 58.5225
    full = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return full[crop : full.shape[0] - crop, crop : full.shape[1] - crop].mean()


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (80, 61)])
def test_mhnet_cal_swaps_red_and_blue_and_replicates_the_border(size: tuple[int, int]) -> None:
    output, target = pair(3, *size)
    luma = [matlab_y(image[:, :, ::-1]) for image in (output, target)]
    measured = measure("mhnet_cal", output, target)
    assert measured["ssim_mhnet_cal"] == pytest.approx(plain_ssim(*luma, crop=0), rel=1e-11)
    assert measured["psnr_mhnet_cal"] == pytest.approx(peak_signal_noise_ratio(luma[1], luma[0], data_range=255), rel=1e-12)


def shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of windows from i - (f - 1) // 2 to i + f // 2 around every f-th pixel, one at a time, mirrored outside."""
    around = np.pad(image, ((factor - 1) // 2, factor // 2), mode="symmetric")
    rows, columns = (range(0, size, factor) for size in image.shape)
    return np.array([[around[i : i + factor, j : j + factor].mean() for j in columns] for i in rows])


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_box_downsampling(factor: int) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (13, 18))
    found = downsample_box(torch.from_numpy(image)[None], factor)[0]
    np.testing.assert_allclose(found, shrunk(image, factor), rtol=1e-13)


def test_y_shrinks_large_images_before_ssim() -> None:
    output, target = pair(4, 384, 400)
    luma = [matlab_y(image) for image in (output, target)]
    measured = measure("y", output, target)
    assert measured["psnr_y"] == pytest.approx(peak_signal_noise_ratio(luma[1], luma[0], data_range=255), rel=1e-12)
    assert measured["ssim_y"] == pytest.approx(plain_ssim(*(shrunk(image, 2) for image in luma), crop=5), rel=1e-11)
    assert measured["ssim_y"] - measure("y8", output, target)["ssim_y8"] > 0.01


@pytest.mark.parametrize(
    ("size", "factor"), [((100, 100), 1), ((321, 481), 1), ((383, 900), 1), ((384, 900), 2), ((512, 512), 2), ((640, 999), 3)]
)
def test_downsampling_factor_rounds_half_up(size: tuple[int, int], factor: int) -> None:
    assert downsampling_factor(*size) == factor


def test_rounded_luma_is_exact_for_every_colour_in_between() -> None:
    r, g, b = np.meshgrid(*[np.arange(256, dtype=np.int32)] * 3, indexing="ij", sparse=True)
    thousandths = (65481 * r + 128553 * g + 24966 * b).astype(np.int32)
    ties = np.argwhere(thousandths % 255_000 == 127_500)
    assert len(ties) == 194
    found = studio_luma_rounded(torch.from_numpy(ties.T.copy()).double()[:, None])[0]
    np.testing.assert_array_equal(found, thousandths[tuple(ties.T)] // 255_000 + 1 + 16)


def test_quantising_is_what_saving_a_png_does() -> None:
    image = torch.cat((torch.linspace(0, 1, 5000), torch.arange(255) / 255 + 0.5 / 255))
    np.testing.assert_array_equal(quantise(image), img_as_ubyte(image.numpy()))
    assert quantise(torch.tensor([-0.1, 1.1, -math.inf, math.inf])).tolist() == [0, 255, 0, 255]
    assert quantise(torch.tensor([100 / 255]).bfloat16()).tolist() == [100]


# properties

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, protocol=st.sampled_from(FULL_REFERENCE))
def test_symmetric_and_bounded(seed: int, protocol: str) -> None:
    output, target = pair(seed, 24, 33)
    there, back = measure(protocol, output, target), measure(protocol, target, output)
    assert there == pytest.approx(back, rel=1e-12)
    assert tuple(there) == PROTOCOLS[protocol].metrics
    assert there[f"ssim_{protocol}"] < 1
    assert 0 < there[f"psnr_{protocol}"] < math.inf


@pytest.mark.parametrize("protocol", FULL_REFERENCE)
def test_identical_images(protocol: str) -> None:
    image = picture(5, 40, 50)
    assert measure(protocol, image, image.copy()) == {
        f"psnr_{protocol}": math.inf,
        f"ssim_{protocol}": pytest.approx(1, abs=1e-14),
    }


def test_one_grey_level_is_48_decibels() -> None:
    image = np.full((20, 20, 3), 100, dtype=np.uint8)
    assert measure("rgb", image + 1, image)["psnr_rgb"] == pytest.approx(20 * math.log10(255), rel=1e-14)


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_studio_swing_flatters_by_1_32_decibels(seed: int) -> None:
    """For a residual of equal channels; the reason why nobody may compare the two lumas."""
    target = as_float64(picture(seed, 16, 20) // 2 + 60)
    output = target + torch.from_numpy(np.random.default_rng(seed).integers(-30, 31, (16, 20)))
    studio, full = (psnr(luma(output)[None], luma(target)[None]).item() for luma in (studio_luma, full_range_luma))
    assert studio - full == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)
    assert measure("rgb", *(quantise(x / 255) for x in (output, target)))["psnr_rgb"] == pytest.approx(full, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, shift=st.integers(1, 40))
def test_brightening_both_leaves_psnr_alone(seed: int, shift: int) -> None:
    output, target = (image // 2 + 40 for image in pair(seed, 16, 20))
    for protocol in ("y", "rgb"):
        before, after = (measure(protocol, output + s, target + s)[f"psnr_{protocol}"] for s in (0, shift))
        assert after == pytest.approx(before, rel=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_ssim_of_one_plane_does_not_depend_on_the_others(seed: int) -> None:
    x, y = (torch.from_numpy(np.random.default_rng((seed, k)).uniform(0, 255, (4, 3, 15, 80))) for k in (0, 1))
    together = ssim(x, y)
    assert together.shape == (4,)
    alone = [torch.stack([ssim(x[i, c][None], y[i, c][None])[0] for c in range(3)]).mean() for i in range(4)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-13, atol=0)


# what may be handed over


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_arrays_tensors_and_batches_agree(protocol: str) -> None:
    pairs = [pair(seed, 200, 210) for seed in (6, 7)]
    arrays = [measure(protocol, *images) for images in pairs]
    batch = [torch.stack([as_tensor(images[k]) for images in pairs]) for k in (0, 1)]
    assert measure_each(protocol, *batch) == arrays
    assert measure_each(protocol, *(b.float() / 255 for b in batch)) == arrays
    assert measure(protocol, batch[0][1].double() / 255, batch[1][1:]) == arrays[1]


def test_values_outside_0_to_1_are_clamped() -> None:
    output, target = pair(8, 20, 20)
    wild = as_tensor(output).float() / 255
    wild[:, 0, 0], wild[:, 0, 1] = 3.0, -3.0
    output[0, 0], output[0, 1] = 255, 0
    assert measure("rgb", wild, as_tensor(target)) == measure("rgb", output, target)


def test_read_only_and_reversed_arrays() -> None:
    output, target = pair(9, 20, 20)
    expected = measure("y8", output[:, ::-1].copy(), target[:, ::-1].copy())
    output.flags.writeable = target.flags.writeable = False
    assert measure("y8", output[:, ::-1], target[:, ::-1]) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_gpu_agrees_with_cpu(protocol: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    output, target = (as_tensor(image).float() / 255 for image in pair(10, 300, 500))
    on_gpu = measure(protocol, output.cuda(), target.cuda())
    assert on_gpu == pytest.approx(measure(protocol, output, target), rel=1e-7 if protocol == "noref" else 1e-9)


GOOD = picture(11, 30, 40)


@pytest.mark.parametrize(
    ("output", "target", "says"),
    [
        (GOOD, GOOD[:, :-1], r"same size.*\(1, 3, 30, 40\).*\(1, 3, 30, 39\)"),
        (GOOD, None, "found no target"),
        (GOOD[..., 0], GOOD, r"output: expected a uint8 array.*\(30, 40\).*grey"),
        (GOOD, GOOD.astype(np.uint16), "target: .*uint16.*16 bits"),
        (GOOD / 255, GOOD, "float64.*floats over as a tensor"),
        (as_tensor(GOOD)[:1], GOOD, r"expected a tensor.*\(1, 30, 40\).*grey"),
        (as_tensor(GOOD).int(), GOOD, "int32"),
        (as_tensor(GOOD) * math.nan, GOOD, "output.*NaN"),
        (GOOD[:10], GOOD[:10], r"11 x 11.*10 x 40"),
        (as_tensor(GOOD).expand(2, -1, -1, -1), as_tensor(GOOD).expand(2, -1, -1, -1), "batch of 2.*measure_each"),
    ],
)
def test_what_cannot_be_measured_says_why(output: object, target: object, says: str) -> None:
    with pytest.raises(DerainzooError, match=f"(?s){says}"):
        measure("y8", output, target)


def test_names() -> None:
    assert all(name == protocol.name and protocol.metrics for name, protocol in PROTOCOLS.items())
    assert metric_names(["y8", "noref"]) == ["psnr_y8", "ssim_y8", "niqe_official", "brisque_pypi"]
    names = metric_names(PROTOCOLS)
    assert len(names) == len(set(names))
    with pytest.raises(DerainzooError, match=r"unknown metric protocol 'rgb8'\. Did you mean 'rgb'"):
        get_protocol("rgb8")
    with pytest.raises(DerainzooError, match="unknown metric protocol"):
        measure("psnr", GOOD, GOOD)


def test_facts_need_no_torch() -> None:
    code = (
        "import sys, derainzoo.metrics as m; m.metric_names(['y8']); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    source = Path(__file__).parents[2] / "src"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(source)}).returncode == 0
