"""MANAS's losses against recorded values and against their formulas written out."""

import itertools

import numpy as np
import pytest
import torch

from derainzoo.errors import DerainzooError
from derainzoo.losses.many_to_one import (
    architecture_entropy,
    complexity,
    external,
    internal,
    restoration,
    ssim,
    total_variation,
)
from golden import GOLDEN

RECORDED = np.load(GOLDEN / "manas" / "losses.npz")
CELLS, OPERATIONS = (torch.from_numpy(RECORDED[k]).double() for k in ("arch_param", "auto_param"))


@pytest.fixture(scope="module")
def images():
    g = np.random.default_rng(11)
    return tuple(torch.from_numpy(g.random((n, 3, 40, 48), dtype=np.float32)).double() for n in (6, 2))


@pytest.mark.parametrize("epoch", [0, 4, 5])
def test_restoration_losses_equal_the_recordings(images, epoch):
    output, target = images
    late = float(epoch >= 5)
    published = {
        "Multi_loss_ssim": restoration(output, target, epoch),
        "Multi_loss": external(output, target, ssim_weight=0) + late * internal(output),
        "Multi_loss_ssim_improved": external(output, target) + late * internal(output, ssim_weight=1),
        "One2One_loss_ssim": external(output, target),
    }
    for name, value in published.items():
        assert abs(value.item() - RECORDED[f"{name}_epoch{epoch}"]) < 1e-10, name


def test_terms_equal_the_recordings(images):
    output, target = images
    assert abs(total_variation(output[:3]).item() - RECORDED["tv_first3"]) < 1e-10
    assert abs(ssim(output[:1], target[:1]).item() - RECORDED["ssim_o0_t0"]) < 1e-10
    assert abs(ssim(output[:2], target).item() - RECORDED["ssim_batch_o01_t"]) < 1e-10
    mse = external(output[:1], target[:1], versions=1, ssim_weight=0, tv_weight=0)
    assert abs(mse.item() - RECORDED["mse_o0_t0"]) < 1e-10
    pairs = [external(output[i : i + 1], target[i : i + 1], versions=1, ssim_weight=0, tv_weight=0) for i in range(2)]
    psnr = sum(-10 * torch.log10(m).item() for m in pairs) / 2
    assert abs(psnr - RECORDED["psnr_o01_t"]) < 1e-8  # recorded from squares rounded to float32


def test_restoration_is_the_mean_over_backgrounds_of_the_formula(images):
    """The batched form against sums over backgrounds, versions and pairs, for four versions."""
    g = torch.Generator().manual_seed(3)
    versions, backgrounds = 4, 3
    output = torch.rand(versions * backgrounds, 3, 13, 16, generator=g, dtype=torch.float64)
    target = torch.rand(backgrounds, 3, 13, 16, generator=g, dtype=torch.float64)
    total = 0.0
    for i in range(backgrounds):
        y, t = output[versions * i : versions * (i + 1)], target[i]
        for k in range(versions):
            total += ((y[k] - t) ** 2).mean() + 1 - ssim(y[k : k + 1], t[None])
        vertical = ((y[:, :, 1:] - y[:, :, :-1]) ** 2).sum() / (3 * 12 * 16)
        horizontal = ((y[..., 1:] - y[..., :-1]) ** 2).sum() / (3 * 13 * 15)
        total += 1e-4 * 2 / versions * (vertical + horizontal)
        total += sum(((y[j] - y[k]) ** 2).mean() for j, k in itertools.combinations(range(versions), 2))
    torch.testing.assert_close(restoration(output, target, 5, versions), total / backgrounds, rtol=0, atol=1e-12)


def test_outputs_pair_with_their_own_background(images):
    output, target = images
    right = restoration(output, target, 5)
    assert restoration(output.roll(3, 0), target.roll(1, 0), 5).item() == pytest.approx(right.item(), abs=1e-12)
    assert abs(restoration(output, target.roll(1, 0), 5) - right) > 1e-4
    assert abs(restoration(output.roll(1, 0), target, 5) - right) > 1e-4


def test_perfect_outputs_cost_only_their_variation(images):
    _, target = images
    output = target.repeat_interleave(3, 0)
    assert internal(output) == 0
    torch.testing.assert_close(restoration(output, target, 9), 1e-4 * total_variation(target), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rows", "backgrounds"), [(4, 2), (6, 3), (6, 1)])
def test_wrong_number_of_versions(rows, backgrounds):
    with pytest.raises(DerainzooError, match=f"expected 3 rainy versions of {backgrounds} backgrounds, found {rows} outputs"):
        external(torch.zeros(rows, 3, 8, 8), torch.zeros(backgrounds, 3, 8, 8))


def test_regularisers_equal_the_recordings():
    assert abs(architecture_entropy(CELLS).item() - RECORDED["arch_reg"]) < 1e-10
    assert abs(architecture_entropy(OPERATIONS).item() - RECORDED["auto_reg"]) < 1e-10
    assert abs(complexity(CELLS, OPERATIONS, published=True).item() - RECORDED["complexity_as_written"]) < 1e-10


def test_entropy_of_decided_rows():
    undecided, nearly, decided = ([[0.0, 0.0]], [[9.0, 0.0]], [[1e4, 0.0]])
    values = []
    for row in (undecided, nearly, decided):
        alpha = torch.tensor(row, requires_grad=True)
        entropy = architecture_entropy(alpha)
        entropy.backward()
        assert alpha.grad.isfinite().all()
        values.append(entropy.item())
    assert values[0] == pytest.approx(np.log10(2), abs=1e-6)
    assert values[0] > values[1] > values[2] == 0


def test_complexity_costs_what_is_large():
    """Ours charges the convolutions (columns 2 and 3), the published form the two spatial operations (4 and 5)."""
    cells = torch.zeros(12, 2)

    def cost(column: int, published: bool) -> float:
        operations = torch.full((27, 9), -100.0)
        operations[:, column] = 100.0
        return complexity(cells, operations, published).item() - 0.5

    assert [round(cost(k, False), 4) for k in range(9)] == [0, 0, 0.5, 0.2, 0, 0, 0.1, 0.1, 0.1]
    assert [round(cost(k, True), 4) for k in range(9)] == [0, 0, 0, 0, 0.5, 0.2, 0.1, 0.1, 0.1]
    parallel = torch.tensor([[100.0, -100.0]]).expand(12, 2)
    assert complexity(parallel, torch.full((27, 9), 0.0)) > complexity(parallel.flip(1), torch.full((27, 9), 0.0))
