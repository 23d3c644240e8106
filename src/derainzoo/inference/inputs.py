"""From the words of the command line to a list of what is to be done: which file becomes which."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from derainzoo.errors import DerainzooError
from derainzoo.images import EXTENSIONS

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"})
"""What counts as a video (lower case)."""

FOREIGN = frozenset(
    {
        ".tif",
        ".tiff",
        ".gif",
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".jfif",
        ".ppm",
        ".tga",
        ".psd",
        ".dng",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
    }
)
"""Other names of pictures and videos: nobody who gives one to the output means a folder (lower case)."""

SHEETS = "compare"
"""The folder inside the output that comparison sheets go to."""


@dataclass(frozen=True)
class Job:
    """One file to restore."""

    source: Path
    target: Path
    sheet: Path | None = None
    """Where the comparison of both goes, if one is wanted."""

    @property
    def is_video(self) -> bool:
        """By name: what videos hold is not looked at before their turn comes."""
        return self.source.suffix.lower() in VIDEOS


@dataclass
class Found:
    """What the inputs come to."""

    jobs: list[Job] = field(default_factory=list)
    ignored: set[Path] = field(default_factory=set)
    """Files that are neither pictures nor videos."""
    missing: list[str] = field(default_factory=list)
    """Inputs that nothing was found for, and why."""


def find_jobs(inputs: Sequence[str], output: Path, suffix: str | None = None, sheets: bool = False) -> Found:
    """Look up files, folders (with all that is below them) and patterns.

    Sub-folders of a folder, and of the fixed part of a pattern, come back in the output. The output itself is no input.

    Args:
        inputs: paths, or patterns of `*`, `?`, `[...]` and `**`.
        output: a folder; or a file, if the only input is one and `output` is named like a picture or a video.
        suffix: of the resulting pictures; None: that of the inputs, or of `output` where it is a file.
        sheets: whether comparison sheets are wanted.
    """
    if output.suffix.lower() in FOREIGN and not output.is_dir():
        raise DerainzooError(
            f"expected an output that is a folder, or a file named {_listed(EXTENSIONS)} or (for a video) {_listed(VIDEOS)}; "
            f"found {output}, a kind that is not written; choose one of these, or make a folder of that name first"
        )
    found = Found()
    pairs: list[tuple[Path, Path]] = []  # source, and result as seen from the output
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            pairs += [(file, file.relative_to(path)) for file in _below(path, output, found, set())]
        elif path.exists() or path.is_symlink():
            pairs.append((path, Path(path.name)))
        elif glob.has_magic(text):
            pairs += _matching(text, output, found)
        else:
            found.missing.append(f"{text}: no such file or folder")
    named = output.suffix.lower() in EXTENSIONS | VIDEOS and not output.is_dir()
    if named and len(inputs) == 1 and Path(inputs[0]).is_file():
        _check_named(pairs[0][0], output, suffix)
        pairs, output, suffix = [(pairs[0][0], Path(output.name))], output.parent, None
    elif named and pairs:
        raise DerainzooError(
            f"expected an output that is a folder for {' '.join(inputs)}; found {output}, the name of a file, which only the "
            f"result of one file can have; name a folder, like -o {output.with_suffix('')}, or make one of that name first"
        )
    for source, result in dict.fromkeys(pairs):
        sheet = None
        if source.suffix.lower() not in VIDEOS:
            result = result.with_suffix(suffix) if suffix else result
            sheet = output / SHEETS / result.with_suffix(".jpg") if sheets else None
        found.jobs.append(Job(source, output / result, sheet))
    _refuse_collisions(found.jobs)
    return found


def _listed(suffixes: Iterable[str]) -> str:
    return ", ".join(sorted(suffixes))


def _check_named(source: Path, output: Path, suffix: str | None) -> None:
    """Refuse a name for the result of one file that promises something else than what would be written."""
    kinds, allowed = ("picture", "video"), (EXTENSIONS, VIDEOS)
    before, after = (path.suffix.lower() in VIDEOS for path in (source, output))
    if before != after:
        raise DerainzooError(
            f"{source} is taken for a {kinds[before]}, and so expected is an output named {_listed(allowed[before])}; found "
            f"{output}, the name of a {kinds[after]}; name it otherwise, or name a folder"
        )
    same = {output.suffix.lower(), suffix} <= {".jpg", ".jpeg"}
    if suffix and not before and not same and output.suffix.lower() != suffix:
        raise DerainzooError(
            f"format={suffix[1:]} and the output {output} contradict each other; expected was one or the other, or -o "
            f"{output.with_suffix(suffix)}"
        )


def _real(path: Path) -> Path:
    """With all links followed, as far as they lead; `Path.resolve` raises where they go in circles."""
    return Path(os.path.realpath(path))


def _below(folder: Path, output: Path, found: Found, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Pictures and videos, sorted, without hidden ones; a folder that links lead to again, in circles perhaps, counts once."""
    try:
        status, entries = folder.stat(), sorted(folder.iterdir())
    except OSError as error:
        found.missing.append(f"{folder}: {error.strerror or error}")
        return
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if _real(entry) != _real(output):
                yield from _below(entry, output, found, seen)
        elif entry.suffix.lower() in EXTENSIONS | VIDEOS:
            yield entry
        else:
            found.ignored.add(entry)


def _matching(pattern: str, output: Path, found: Found) -> Iterator[tuple[Path, Path]]:
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    if not matches:
        found.missing.append(f"{pattern}: no file matches")
    within = _real(output) != _real(fixed) and _real(output).is_relative_to(_real(fixed))
    seen: set[tuple[int, int]] = set()
    for match in matches:
        if within and _real(match).is_relative_to(_real(output)):
            continue
        if match.is_dir():
            yield from ((file, file.relative_to(fixed)) for file in _below(match, output, found, seen))
        elif match.suffix.lower() in EXTENSIONS | VIDEOS:
            yield match, Path(match.name) if ".." in match.relative_to(fixed).parts else match.relative_to(fixed)
        else:
            found.ignored.add(match)


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    """Before anything is done: two results of one name, or a result in the place of an input."""
    sources = {_real(job.source): job.source for job in jobs}
    claimed: dict[Path, Path] = {}
    for job in jobs:
        for path in (job.target, job.sheet):
            if path is None:
                continue
            place = _real(path)
            if place in sources:
                raise DerainzooError(f"{path} is itself an input and would be overwritten; choose another folder with -o")
            if claimed.setdefault(place, job.source) != job.source:
                raise DerainzooError(
                    f"{claimed[place]} and {job.source} would both become {path}; do them one after the other, into two folders"
                )
