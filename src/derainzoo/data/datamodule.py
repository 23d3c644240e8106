"""One data module for every set, every task and every network."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from derainzoo.config import plain
from derainzoo.data.batch import Sample, collate, to_float
from derainzoo.data.catalog import dataset_info, find_pairs, find_root, split_by_background, two_halves
from derainzoo.data.layouts import Files, Pair
from derainzoo.data.pairs import PairSource, RainSource, Source, TrainSet, WholeSet
from derainzoo.data.rain import RainSynthesiser
from derainzoo.data.schedule import ShareSampler, StepSampler, make_stages
from derainzoo.data.stores import CacheStore, FileStore, MemoryStore, Store, known_scenes
from derainzoo.data.synthetic import clean_pictures, embedded_backgrounds
from derainzoo.data.transforms import JointGeometry
from derainzoo.errors import DerainzooError

log = logging.getLogger(__name__)


class StepLoader(DataLoader[Sample]):
    """A loader whose position is the trainer's step: nothing to store, and Lightning need not warn that it cannot resume."""

    def state_dict(self) -> dict[str, Any]:
        """Empty: `StepSampler.start` says where to go on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


class DerainDataModule(pl.LightningDataModule):
    """Train, validation and test loaders.

    Validation images are split off the training set by background, never taken from the test set. Batches reach the network as
    `Batch` of floats; until they are on the device they are the files' integers.

    Args:
        name: a set of the catalog, or `synthetic`.
        root: the set's folder in any known layout, or (synthetic) a folder of clean pictures; None looks under `data_dir`, and
            for synthetic rain takes the photographs that ship with the package.
        data_dir: folder that holds many sets.
        files: patterns of the user's own layout, arguments of `layouts.Files`.
        strict: pictures without a partner are an error.
        train, val: splits; `val=None` holds images out of the training split.
        test: splits of this set, or `set/split` of others.
        val_images: how many validation images, of at most a fifth of the scenes.
        batch_size: backgrounds in a step, over all devices and accumulation steps.
        patch_size: side of the training patches.
        versions: rainy versions of each background in a training batch.
        augment: albumentations geometry, see `transforms`.
        progressive: patch and batch by step, see `schedule`.
        rain: preset of synthetic rain.
        cache: folder written by `derainzoo data prepare`; used if it is there.
        num_workers: loader processes, or "auto".
        halves: two training loaders on disjoint backgrounds, `weights` and `alphas`, as architecture searches need them.
        seed: of every random decision.
        steps, accumulate: of the run; they decide how much a training loader yields.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str | None = None,
        data_dir: str = "data",
        files: Mapping[str, Any] | None = None,
        strict: bool = True,
        train: str = "train",
        val: str | None = None,
        test: Sequence[str] = ("test",),
        val_images: int = 16,
        batch_size: int = 16,
        patch_size: int = 128,
        versions: int = 1,
        augment: Sequence[Any] = ("D4",),
        progressive: Sequence[dict[str, int]] | None = None,
        rain: str = "any",
        cache: str | None = None,
        num_workers: int | str = "auto",
        halves: bool = False,
        seed: int = 0,
        steps: int = 1,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        self.set_name, self.versions, self.seed, self.halves = name, versions, seed, halves
        self.root, self.data_dir = Path(root) if root else None, Path(data_dir)
        self.files = Files(**files) if files and files.get("rainy") else None
        self.strict = strict
        self.train_split, self.val_split, self.test_splits, self.val_images = train, val, list(test), val_images
        self.stages = make_stages(patch_size, batch_size, progressive)
        self.geometry = JointGeometry(augment) if augment else None
        self.rain, self.densities = RainSynthesiser(rain), rain == "any"  # other presets have a density of their own
        self.cache = Path(cache) if cache else None
        self.num_workers = num_workers
        self.steps, self.accumulate = steps, accumulate
        self.train_pairs: list[Pair] = []
        self.val_pairs: list[Pair] = []
        self.tests: dict[str, Source] = {}

    # --- what there is -------------------------------------------------------------------------------------------------------

    @property
    def test_names(self) -> list[str]:
        """Names of the test sets, in the order of their loaders."""
        return list(self.tests)

    def setup(self, stage: str | None = None) -> None:
        """Find what the stage needs; an absent or wrong folder is an error that says what was looked for."""
        if stage in (None, "fit", "validate") and not self.train_pairs:
            self._setup_training()
        if stage in (None, "test") and not self.tests:
            self.tests = dict(map(self._test_set, self._test_splits()))

    def choose_tests(self, split: str) -> None:
        """Test on `test` (the configured sets), `val` (the images held out of the training split), or any split."""
        if split == "val":
            self.setup("fit")
            self.tests = {f"{self.set_name}-val": self._source(self.val_pairs, measured=True)}
        elif split != "test":
            self.test_splits = [split]

    def _setup_training(self) -> None:
        if self.set_name == "synthetic":
            self.train_pairs, self.val_pairs = self._pictures("train"), self._pictures("val")
            return
        pairs = self._with_scenes(self._training_pairs())
        if self.val_split:
            self.train_pairs, self.val_pairs = pairs, self._pairs(self.set_name, self.val_split)
        else:
            scenes = len({p.background for p in pairs})
            if scenes < 2:
                raise DerainzooError(
                    f"{self.set_name} ({self.train_split}) has {scenes} scene; one more is needed to validate on"
                )
            self.train_pairs, held_out = split_by_background(pairs, max(1, min(self.val_images, scenes // 5)), self.seed)
            self.val_pairs = held_out[:: max(1, len(held_out) // self.val_images)][: self.val_images]

    def _training_pairs(self) -> list[Pair]:
        try:
            return self._pairs(self.set_name, self.train_split)
        except DerainzooError:
            if self.set_name != "folder" or self.train_split != "train":
                raise
            return self._pairs("folder", "all")  # a user's own folder need not be divided

    def _with_scenes(self, pairs: list[Pair]) -> list[Pair]:
        """Scenes as `derainzoo data prepare` saw them, where the names of a set's files do not tell."""
        if not dataset_info(self.set_name).hidden_scenes:
            return pairs
        scenes = known_scenes(self.cache)
        if not scenes:
            log.warning(
                "%s holds several pictures of one scene under different names: training and validation may share scenes; "
                "`derainzoo data prepare data=%s` looks at them",
                self.set_name,
                self.set_name,
            )
        return [replace(p, background=scenes.get(p.name, p.background)) for p in pairs]

    def _test_splits(self) -> list[str]:
        """A user's own folder may be undivided: then it is measured whole, but never after it was trained on."""
        if self.set_name != "folder" or self.test_splits != ["test"]:
            return self.test_splits
        if self.files is None:
            try:
                self._pairs("folder", "test")
                return ["test"]
            except DerainzooError:
                pass
        if self.train_pairs:
            log.info("%s has no test split: nothing is tested (data.test=[set/split] names another)", self.root)
            return []
        return ["all"]

    def _test_set(self, split: str) -> tuple[str, Source]:
        if self.set_name == "synthetic" and split == "test":
            pictures = _as_pairs(embedded_backgrounds("test"))
            return "synthetic", RainSource(pictures, FileStore(), self.rain, densities=self.densities)
        name, _, split = split.rpartition("/")
        pairs = self._pairs(name or self.set_name, split)
        label = name or self.set_name
        return label if split == "test" else f"{label}-{split}", PairSource(pairs, FileStore())

    def _pictures(self, split: str) -> list[Pair]:
        if self.root is None:
            return _as_pairs(embedded_backgrounds(split))
        return _as_pairs(clean_pictures(self.root, split, 0.1, self.seed), self.root)[
            : None if split == "train" else self.val_images
        ]

    def _pairs(self, name: str, split: str) -> list[Pair]:
        own = name == self.set_name
        root = self.root if own and self.root else find_root(name, self.data_dir)
        return find_pairs(name, split, root or self.data_dir, files=self.files if own else None, strict=self.strict)

    def files_to_prepare(self) -> tuple[list[Path], Path]:
        """Every file of training and validation, and the folder that their names in a cache are relative to."""
        self.setup("fit")
        paths = {path for p in self.train_pairs + self.val_pairs for path in (p.rainy, p.clean) if path is not None}
        return sorted(paths), (self.root or self.data_dir).absolute()

    def _store(self) -> Store:
        if self.set_name == "synthetic" and self.root is None:
            return MemoryStore()
        if self.cache is None or not (self.cache / "index.json").exists():
            return FileStore()
        store = CacheStore(self.cache, (self.root or self.data_dir).absolute())
        store.check(self.files_to_prepare()[0])
        return store

    def _source(self, pairs: Sequence[Pair], versions: int = 1, measured: bool = False) -> Source:
        if self.set_name == "synthetic":
            return RainSource(pairs, self._store(), self.rain, versions, measured and self.densities)
        return PairSource(pairs, self._store(), versions)

    # --- loaders -------------------------------------------------------------------------------------------------------------

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _workers(self) -> int:
        if self.num_workers != "auto":
            return int(self.num_workers)
        here = self.trainer.num_devices if self.trainer else 1
        return min(8, max(1, (os.cpu_count() or 1) // here - 1))

    def _training_loader(self, pairs: Sequence[Pair], seed: int) -> StepLoader:
        source = self._source(pairs, self.versions)
        rank, world = self._process()
        start = self.trainer.global_step if self.trainer else 0
        count = len(source.names)
        sampler = StepSampler(count, self.stages, self.steps, seed, rank, world, self.accumulate, start)
        workers = self._workers()
        return StepLoader(
            TrainSet(source, seed, self.geometry),
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
            prefetch_factor=4 if workers else None,
        )

    def train_dataloader(self) -> Any:
        """Micro-batches from the trainer's step to the run's end; for searches two loaders on disjoint halves."""
        if not self.halves:
            return self._training_loader(self.train_pairs, self.seed)
        weights, alphas = two_halves(self.train_pairs, self.seed)
        return {"weights": self._training_loader(weights, self.seed), "alphas": self._training_loader(alphas, self.seed + 1)}

    def _whole_loader(self, source: Source) -> DataLoader[Sample]:
        data = WholeSet(source, self.seed)
        # images differ in size: one at a time
        return DataLoader(
            data,
            sampler=ShareSampler(len(data), *self._process()),
            num_workers=min(2, self._workers()),
            collate_fn=collate,
            worker_init_fn=_one_thread,
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Whole images, each on one process."""
        return self._whole_loader(self._source(self.val_pairs, measured=True))

    def test_dataloader(self) -> list[DataLoader[Sample]]:
        """A loader a test set."""
        return [self._whole_loader(source) for source in self.tests.values()]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Integers to floats, on the device."""
        if isinstance(batch, dict):
            return {k: self.on_after_batch_transfer(b, dataloader_idx) for k, b in batch.items()}
        return batch._replace(input=to_float(batch.input), target=to_float(batch.target))


def make_data(cfg: DictConfig, steps: int = 1, halves: bool = False) -> DerainDataModule:
    """The data module of a run's configuration."""
    return DerainDataModule(
        **plain(cfg.data),
        data_dir=cfg.paths.data,
        seed=cfg.seed,
        steps=steps,
        accumulate=cfg.trainer.accumulate_grad_batches,
        halves=halves,
    )


def _one_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # workers are the parallelism; threads of theirs only get in each other's way


def _as_pairs(pictures: Sequence[Path], root: Path | None = None) -> list[Pair]:
    """Clean pictures as pairs that wait for rain; shipped crops of one photograph are one background."""
    names = [p.relative_to(root).as_posix() if root else p.stem for p in pictures]
    return [Pair(n, p, p, n if root else n.rpartition("-")[0]) for n, p in zip(names, pictures, strict=True)]
