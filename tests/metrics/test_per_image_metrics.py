"""The table of values by image: means, repeated and identical images, files, two processes."""

import csv
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from derainzoo.errors import DerainzooError
from derainzoo.metrics import measure
from derainzoo.metrics.per_image import PerImageMetrics
from pictures import picture, rainy


def batch(*seeds: int) -> tuple[Tensor, Tensor, list[str]]:
    clean = [picture(seed, 24, 30) for seed in seeds]
    output = [rainy(seed, image, amount=3 * seed) for seed, image in zip(seeds, clean, strict=True)]
    as_floats = [torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 for images in (output, clean)]
    return as_floats[0], as_floats[1], [f"{seed}.png" for seed in seeds]


def expected(seed: int, protocol: str = "y8") -> dict[str, float]:
    output, clean, _ = batch(seed)
    return measure(protocol, output, clean)


def test_mean_over_images_whatever_the_batches() -> None:
    metric = PerImageMetrics(["y8", "rgb"])
    metric.update(*batch(2, 1))
    metric.update(*batch(3))
    assert metric.table() == [{"name": f"{s}.png", **expected(s), **expected(s, "rgb")} for s in (1, 2, 3)]
    means = metric.compute()
    assert list(means) == ["psnr_y8", "ssim_y8", "psnr_rgb", "ssim_rgb", "images", "identical_images"]
    assert means["psnr_y8"] == pytest.approx(np.mean([expected(s)["psnr_y8"] for s in (1, 2, 3)]), rel=1e-14)
    assert (means["images"], means["identical_images"]) == (3, 0)


def test_an_image_seen_twice_counts_once() -> None:
    once, twice = PerImageMetrics(), PerImageMetrics()
    once.update(*batch(1, 2))
    for seeds in ((1, 2), (2,)):
        twice.update(*batch(*seeds))
    assert twice.compute() == once.compute()


def test_two_images_of_one_name_are_an_error() -> None:
    metric = PerImageMetrics()
    output, target, _ = batch(1, 2)
    metric.update(output, target, ["a/1.png", "a/1.png"])
    with pytest.raises(DerainzooError, match=r"'a/1\.png' was measured twice, with psnr_y8 = .* and .*distinct names"):
        metric.compute()


def test_identical_images_are_kept_apart() -> None:
    metric = PerImageMetrics(["rgb"])
    output, target, names = batch(1, 2)
    metric.update(torch.cat((output[:1], target[1:])), target, names)
    means = metric.compute()
    assert means["psnr_rgb"] == expected(1, "rgb")["psnr_rgb"]
    assert means["ssim_rgb"] == pytest.approx((expected(1, "rgb")["ssim_rgb"] + 1) / 2, rel=1e-14)
    assert (means["images"], means["identical_images"]) == (2, 1)
    assert metric.table()[1]["psnr_rgb"] == math.inf


def test_nothing_left_to_average_is_nan() -> None:
    metric = PerImageMetrics()
    _, target, names = batch(1)
    metric.update(target, target, names)
    means = metric.compute()
    assert math.isnan(means["psnr_y8"])
    assert means["ssim_y8"] == pytest.approx(1)
    assert means["identical_images"] == 1


def test_without_target() -> None:
    metric = PerImageMetrics(["noref"])
    assert not metric.needs_target
    assert PerImageMetrics(["noref", "y8"]).needs_target
    image = picture(1, 100, 200)
    metric.update(torch.from_numpy(image).permute(2, 0, 1)[None], None, ["real.png"])
    assert metric.table() == [{"name": "real.png", **measure("noref", image)}]
    assert metric.compute()["identical_images"] == 0


def test_reset_forward_and_pickle() -> None:
    metric = PerImageMetrics()
    metric.update(*batch(1))
    assert metric(*batch(2))["psnr_y8"] == expected(2)["psnr_y8"]  # forward: of this batch alone
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.compute() == metric.compute()
    assert metric.compute()["images"] == 2
    metric.reset()
    assert metric.table() == []


@pytest.mark.parametrize("names", [["1.png"], ["1.png", "2.png", "3.png"]])
def test_every_image_needs_a_name(names: list[str]) -> None:
    output, target, _ = batch(1, 2)
    with pytest.raises(DerainzooError, match="a name for each image"):
        PerImageMetrics().update(output, target, names)


def test_unknown_protocol() -> None:
    with pytest.raises(DerainzooError, match="unknown metric protocol 'psnr'"):
        PerImageMetrics(["psnr"])


NAMES = ["with, comma.png", "Übung/雨.png", "b\udcff.png"]  # the last is not UTF-8 on disk


def filled(names: list[str]) -> PerImageMetrics:
    metric = PerImageMetrics(["rgb"])
    output, target, _ = batch(1, 2, 3)
    metric.update(output[: len(names)], target[: len(names)], names)
    return metric


def test_csv_gives_everything_back(tmp_path: Path) -> None:
    metric = filled(NAMES)
    path = tmp_path / "new" / "values.csv"
    metric.write_csv(path)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [{k: v if k == "name" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert rows == metric.table()
    assert list(path.parent.iterdir()) == [path]


def test_parquet_gives_everything_back(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    metric = filled(NAMES[:2])
    metric.write_parquet(tmp_path / "values.parquet")
    assert parquet.read_table(tmp_path / "values.parquet").to_pylist() == metric.table()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "values.csv"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(csv.DictWriter, "writerows", fail)
    with pytest.raises(DerainzooError, match="disk full"):
        filled(["a.png"]).write_csv(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _one_of_two(rank: int, folder: Path) -> None:
    """Images 1, 2, 3 here and 3 again there, of other sizes of name; then a second metric that one process never feeds."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    both, one = PerImageMetrics(), PerImageMetrics()
    both.update(*batch(*((1, 2, 3) if rank == 0 else (3,))))
    if rank == 0:
        one.update(*batch(1))
    for metric, seeds in ((both, (1, 2, 3)), (one, (1,))):
        table = metric.table()
        assert table == [{"name": f"{s}.png", **expected(s)} for s in seeds]
        assert metric.compute()["psnr_y8"] == pytest.approx(np.mean([row["psnr_y8"] for row in table]), rel=1e-14)
    both.update(*batch(4))  # gathering must not have changed what this process holds
    assert len(both.table()) == 4
    both.write_csv(folder / "values.csv")
    torch.distributed.barrier()
    assert len((folder / "values.csv").read_text().splitlines()) == 5
    torch.distributed.destroy_process_group()


@pytest.mark.multiprocess
def test_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, args=(tmp_path,), nprocs=2)
