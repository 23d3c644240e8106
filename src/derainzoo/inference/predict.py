"""The task `predict`: rain out of pictures, folders of them and videos.

What cannot be done is reported, the rest is done, and the exit status says so. A result appears whole or not at all, and one
that is there is left alone: a run that was stopped goes on when the same command is given again.
"""

import errno
import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from traceback import format_exception_only

import cv2
import numpy as np
import torch
from omegaconf import DictConfig

from derainzoo.config import chosen_model
from derainzoo.errors import DerainzooError
from derainzoo.images import MAX_PIXELS
from derainzoo.inference.inputs import Found, Job, find_jobs
from derainzoo.inference.photo import SUFFIXES, Photo, read_photo, write_photo
from derainzoo.inference.predictor import Predictor, load_network
from derainzoo.inference.progress import Progress, clock
from derainzoo.inference.stages import ahead
from derainzoo.inference.video import restore_video
from derainzoo.models.layers import set_pool_window

log = logging.getLogger(__name__)

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # with which no other file would fare better

_WIDEST_SHEET = 16_384


@dataclass
class Tally:
    """What came of the jobs."""

    done: int = 0
    there: int = 0
    """Left alone, because there was a result."""
    failed: list[str] = field(default_factory=list)

    def enter(self, there: bool, error: str) -> None:
        """Count one job, and say at once if it failed."""
        if error:
            self.failed.append(error)
            log.error("failed: %s", error)
        elif there:
            self.there += 1
        else:
            self.done += 1


@dataclass(frozen=True)
class Settings:
    """How files are read and written."""

    overwrite: bool = False
    quality: int = 95
    max_pixels: int = MAX_PIXELS


def predict(cfg: DictConfig) -> None:
    """Run the task on one device. Ends the program with status 1 if anything failed, with 130 if it was interrupted."""
    began = monotonic()
    found = plan(cfg)
    settings = make_settings(cfg)
    tally = Tally(there=len(found.jobs))
    if any(is_open(job, settings) for job in found.jobs):
        try:
            tally = work(found.jobs, make_predictor(cfg), settings)
        except KeyboardInterrupt:
            log.warning("interrupted; all results that are there are whole, and the same command goes on from here")
            raise SystemExit(130) from None
    conclude(tally, found, Path(cfg.output), monotonic() - began)


# --- before and after -------------------------------------------------------------------------------------------------------


def plan(cfg: DictConfig) -> Found:
    """What there is to do. Mistakes that concern everything are raised here, before anything is loaded."""
    if cfg.format is not None and f".{cfg.format}" not in SUFFIXES:
        known = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise DerainzooError(f"format must be one of {known}, or null for that of the input, not {cfg.format!r}")
    if not 1 <= cfg.quality <= 100:
        raise DerainzooError(f"quality must be from 1 to 100, not {cfg.quality}")
    inputs = [cfg.input] if isinstance(cfg.input, str) else [str(word) for word in cfg.input]
    found = find_jobs(inputs, Path(cfg.output), f".{cfg.format}" if cfg.format else None, cfg.compare)
    for text in found.missing:
        log.error("failed: %s", text)
    if found.jobs:
        _check_writable(found.jobs[0].target.parent)
    return found


def _check_writable(folder: Path) -> None:
    """Before hours of work, not after; the folder itself is made by the first result."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise DerainzooError(f"cannot write into {folder}: {error.strerror} ({there}); choose another folder with -o") from None


def make_settings(cfg: DictConfig) -> Settings:
    """How files are read and written in this run."""
    return Settings(cfg.overwrite, cfg.quality, cfg.max_pixels)


def make_predictor(cfg: DictConfig, device: str | torch.device | None = None) -> Predictor:
    """Load the network of this run; `device` overrides the configured one."""
    name, arguments = chosen_model(cfg)
    torch.manual_seed(cfg.seed)  # random weights, if they are allowed, shall be the same everywhere
    net = load_network(name, cfg.weights, arguments=arguments, allow_random=cfg.allow_random)
    if cfg.local_pool is not None:
        set_pool_window(net, cfg.local_pool)
    predictor = Predictor(net, device or cfg.device, cfg.precision, cfg.tile, cfg.overlap, cfg.tile_batch)
    if cfg.compile:
        predictor.net.compile()
    parameters = sum(p.numel() for p in net.parameters())
    log.info("%s, %.2f M parameters, on %s in %s", type(net).__name__, parameters / 1e6, predictor.device, cfg.precision)
    return predictor


def conclude(tally: Tally, found: Found, output: Path, seconds: float) -> None:
    """Say what came out; end with status 1 if something did not."""
    parts = [f"{tally.done} done"]
    if tally.there:
        parts.append(f"{tally.there} had results already (--overwrite does them again)")
    if found.ignored:
        parts.append(f"passed over, as neither picture nor video: {len(found.ignored)}")
    failed = [*found.missing, *tally.failed]
    if failed:
        parts.append(f"{len(failed)} failed")
    log.info("%s: %s, in %s", output, "; ".join(parts), clock(seconds))
    if failed:
        raise SystemExit(1)


# --- the work ---------------------------------------------------------------------------------------------------------------


def is_open(job: Job, settings: Settings) -> bool:
    """Whether a job is still to be done."""
    return settings.overwrite or not job.target.exists()


def work(jobs: Sequence[Job], predictor: Predictor, settings: Settings, label: str = "") -> Tally:
    """Do the jobs: first all pictures, then the videos."""
    pictures = [job for job in jobs if not job.is_video]
    tally = Tally()
    if pictures:
        with Progress(len(pictures), "images", label) as progress:
            _restore_pictures(pictures, predictor, settings, progress, tally)
    for job in jobs:
        if job.is_video:
            with Progress(0, "frames", label or job.source.name) as progress:
                there = not is_open(job, settings)
                tally.enter(there, "" if there else _restore_one_video(job, predictor, progress))
    return tally


@dataclass
class _Picture:
    """One picture on its way through the stages."""

    job: Job
    photo: Photo | None = None
    before: np.ndarray | None = None
    """The input, upright, where a sheet is wanted."""
    notes: tuple[str, ...] = ()
    error: str = ""
    there: bool = False


def _restore_pictures(jobs: Sequence[Job], predictor: Predictor, settings: Settings, progress: Progress, tally: Tally) -> None:
    """Decode, compute and encode at the same time: threads read ahead and write behind the network."""

    def read(picture: _Picture) -> None:
        if is_open(picture.job, settings):
            picture.photo = read_photo(picture.job.source, max_pixels=settings.max_pixels)
        else:
            picture.there = True

    def compute(picture: _Picture) -> None:
        assert picture.photo
        before = picture.photo.upright
        picture.photo = picture.photo.with_upright(predictor(before))
        picture.before = before if picture.job.sheet else None

    def write(picture: _Picture) -> None:
        assert picture.photo
        if picture.job.sheet and picture.before is not None:
            write_photo(picture.job.sheet, _sheet(picture.before, picture.photo.upright), settings.quality)
        # last, because it is what tells the next run that all is done
        picture.notes = write_photo(picture.job.target, picture.photo, settings.quality)

    with closing(ahead(partial(_guarded, read), (_Picture(job) for job in jobs))) as pictures:
        restored = (_guarded(compute, picture) for picture in pictures)
        with closing(ahead(partial(_guarded, write), restored)) as written:
            for picture in written:
                for note in picture.notes:
                    log.warning("%s: %s", picture.job.source, note)
                progress.step(worked=not picture.there)
                tally.enter(picture.there, picture.error)


def _guarded(stage: Callable[[_Picture], None], picture: _Picture) -> _Picture:
    """Run one stage, unless the picture has come to its end: what is wrong with one must not stop the others."""
    if not (picture.there or picture.error):
        try:
            stage(picture)
        except Exception as error:  # decoders and encoders meet arbitrary bytes and raise nearly everything
            picture.error = _describe(picture.job, error)
    return picture


def _restore_one_video(job: Job, predictor: Predictor, progress: Progress) -> str:
    """Returns what was wrong with it, or nothing."""

    def step(done: int, total: int) -> None:
        progress.total = total
        progress.step()

    try:
        report = restore_video(job.source, job.target, predictor, step)
    except Exception as error:  # as in _guarded
        return _describe(job, error)
    for note in report.notes:
        log.warning("%s: %s", job.source, note)
    if report.damage:
        return f"{job.source}: {report.damage}; {job.target} holds the {report.frames} frames that could be read"
    return ""


def _describe(job: Job, error: Exception) -> str:
    """What is wrong with which file. If it is the disk, that ends everything."""
    system = error if isinstance(error, OSError) else error.__cause__  # files.whole_file tells of the disk in words of its own
    text = str(error)
    if not isinstance(error, DerainzooError | OSError):  # nobody foresaw it: its kind may be all that it says
        log.debug("%s", job.source, exc_info=error)
        text = format_exception_only(error)[0].partition("\n")[0]
    if isinstance(system, OSError) and system.errno is not None:
        text = f"{system.strerror} ({system.filename or job.target})"
        if system.errno in _DISK:
            raise DerainzooError(
                f"{text}; all results that are there are whole, and the same command goes on from here"
            ) from None
    return text if str(job.source) in text else f"{job.source}: {text}"


def _sheet(before: np.ndarray, after: np.ndarray) -> Photo:
    """Input and output side by side, in 8 bits and without alpha."""
    height, _, channels = before.shape
    colours = 1 if channels < 3 else 3
    gap = np.full((height, 8, colours), np.iinfo(before.dtype).max, before.dtype)
    pixels = np.concatenate([before[..., :colours], gap, after[..., :colours]], axis=1)
    if pixels.shape[1] > _WIDEST_SHEET:
        size = (_WIDEST_SHEET, max(1, round(height * _WIDEST_SHEET / pixels.shape[1])))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], colours)
    return Photo(pixels, "JPEG", lossy=True)
