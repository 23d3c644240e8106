"""Is this copy of a data set sound? Counts, readability, sizes, sides, the PSNR of the input, and scenes common to its splits.

report = verify("rain200h", "/data/Rain200H")
print("\\n".join(report.lines()))
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from derainzoo.data.catalog import Found, dataset_info, find, known_overlaps, unpaired
from derainzoo.data.layouts import Files, Pair, read_pair
from derainzoo.data.overlap import match_thumbnails, thumbnail
from derainzoo.data.sets import Dataset
from derainzoo.errors import DerainzooError
from derainzoo.images import read_header

PSNR_TOLERANCE = 0.02
"""Decibels by which the mean over a whole split may miss the catalog's, which has two decimals."""

Psnr = Callable[[np.ndarray, np.ndarray], float]
Thumbnails = dict[Path, tuple[str, np.ndarray]]
"""Of a split: clean file -> name of a pair, thumbnail."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (`error`), may be wrong (`warning`) or is good to know (`note`)."""

    level: Literal["error", "warning", "note"]
    text: str


@dataclass(frozen=True)
class SplitReport:
    """What one split is like."""

    split: str
    folder: str
    layout: str
    evidence: str
    pairs: int
    published: int | None
    examined: int
    scenes: int
    sizes: dict[str, int]
    """`width x height` -> how many, the most frequent first."""
    input_psnr: float | None
    """Mean over pairs that differ; None without ground truth."""
    expected_psnr: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Report:
    """The outcome of `verify`."""

    dataset: str
    splits: tuple[SplitReport, ...]
    overlaps: dict[str, list[tuple[str, str, int]]]
    """`train/test` -> names of pictures of one scene, and how many bits their hashes differ by."""
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is an error."""
        return not any(f.level == "error" for f in self.all_findings())

    def all_findings(self) -> Iterator[Finding]:
        """Those of the splits and those of the whole."""
        for split in self.splits:
            yield from split.findings
        yield from self.findings

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "sound": self.sound}

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [self.dataset]
        for s in self.splits:
            count = f"{s.pairs} of {s.published}" if s.published else str(s.pairs)
            examined = f", {s.examined} examined" if s.examined < s.pairs else ""
            lines.append(f"  {s.split}: {count} pairs{examined}, {s.scenes} scenes, in {s.folder} ({s.layout}: {s.evidence})")
            sizes = [f"{size} ({n})" for size, n in list(s.sizes.items())[:4]] + (["..."] if len(s.sizes) > 4 else [])
            lines.append(f"    sizes: {', '.join(sizes) or 'none read'}")
            if s.input_psnr is not None:
                expected = f", {s.expected_psnr:.2f} expected" if s.expected_psnr is not None else ""
                lines.append(f"    input: {s.input_psnr:.2f} dB (psnr_y8){expected}")
            lines += [f"    {f.level}: {f.text}" for f in s.findings]
        lines += [f"  {f.level}: {f.text}" for f in self.findings]
        levels = Counter(f.level for f in self.all_findings())
        lines.append(f"  {'sound' if self.sound else 'NOT SOUND'}: {levels['error']} errors, {levels['warning']} warnings")
        return lines


def verify(
    dataset: str,
    root: str | Path,
    splits: Sequence[str] | None = None,
    *,
    files: Files | None = None,
    overlap: bool = True,
    at_most: int | None = None,
    psnr: Psnr | None = None,
    workers: int | None = None,
) -> Report:
    """Read a copy of a set and say what is wrong with it.

    Args:
        dataset: a name from the catalog.
        root: where it lies, as for `catalog.find`.
        splits: which to look at; by default all that are there.
        files: patterns of your own, as for `catalog.find`.
        overlap: look for scenes that two of the splits have in common.
        at_most: read no more pictures of a split than this, evenly spread.
        psnr: how to measure the input, (rainy, clean) in 8 bits -> dB; by default as in protocol y8.
        workers: threads; by default one for each processor.
    """
    info = dataset_info(dataset)
    found = _find_splits(info, root, splits, files)
    compare = overlap and len(found) > 1
    reports: list[SplitReport] = []
    thumbnails: dict[str, Thumbnails] = {}
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for split, where in found.items():
            pairs = where.match.pairs
            count = min(len(pairs), at_most or len(pairs))
            chosen = [pairs[i * len(pairs) // count] for i in range(count)]
            examined = list(pool.map(lambda pair: _examine(pair, psnr or _psnr_y8, compare=compare), chosen))
            reports.append(_report(info, split, where, examined, complete=count == len(pairs)))
            # one of the rainy versions of a clean picture is enough
            thumbnails[split] = {
                e.pair.clean or e.pair.rainy: (e.pair.name, e.thumbnail) for e in examined if e.thumbnail is not None
            }
    common = _common_scenes(thumbnails)
    return Report(info.name, tuple(reports), common, tuple(_overall(info, found, common)))


def _find_splits(info: Dataset, root: str | Path, splits: Sequence[str] | None, files: Files | None) -> dict[str, Found]:
    if splits is not None:
        return {split: find(info.name, split, root, files=files) for split in splits}
    found: dict[str, Found] = {}
    failed: DerainzooError | None = None
    for split in info.whole_splits:
        try:
            found[split] = find(info.name, split, root, files=files)
        except DerainzooError as error:
            failed = error
    if not found and failed:
        raise failed
    return found


# ----------------------------------------------------------------------------------------------------------- one picture


@dataclass(frozen=True)
class _Examined:
    pair: Pair
    size: str = ""
    psnr: float | None = None
    wrong_side: bool = False
    lossy: str = ""
    """Format of a lossy ground truth."""
    thumbnail: np.ndarray | None = None
    error: str = ""
    """If there is one, nothing else is known."""


def _examine(pair: Pair, psnr: Psnr, *, compare: bool) -> _Examined:
    try:
        rainy, clean = read_pair(pair)
        size = f"{rainy.shape[1]}x{rainy.shape[0]}"
        thumb = thumbnail(rainy if clean is None else clean) if compare else None
        if pair.clean is None or clean is None:
            return _Examined(pair, size, thumbnail=thumb)
        if rainy.shape != clean.shape:
            return _Examined(pair, error=f"{pair.name} is {size}, its clean picture {clean.shape[1]}x{clean.shape[0]}")
        header = read_header(pair.clean)
        rainy8, clean8 = _eight_bits(rainy), _eight_bits(clean)
        wrong_side = pair.side is not None and _detail(clean8) > _detail(rainy8)
        return _Examined(pair, size, psnr(rainy8, clean8), wrong_side, header.format if header.lossy else "", thumb)
    except DerainzooError as error:
        return _Examined(pair, error=str(error))


def _eight_bits(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.round(image / 257).astype(np.uint8)


def _luma(image: np.ndarray) -> np.ndarray:
    """MATLAB's rgb2ycbcr in 8 bits, as protocol y8 takes it."""
    return np.floor(image @ np.array([65.481, 128.553, 24.966]) / 255 + 16.5)


def _psnr_y8(rainy: np.ndarray, clean: np.ndarray) -> float:
    error = np.mean((_luma(rainy) - _luma(clean)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def _detail(image: np.ndarray) -> float:
    """Energy of the gradient: rain adds to it."""
    luma = _luma(image)
    return float((np.diff(luma, axis=0) ** 2).mean() + (np.diff(luma, axis=1) ** 2).mean())


# ------------------------------------------------------------------------------------------------------------- one split


def _report(info: Dataset, split: str, where: Found, examined: list[_Examined], *, complete: bool) -> SplitReport:
    facts, found = info.splits[split], where.match
    values = [e.psnr for e in examined if e.psnr is not None and np.isfinite(e.psnr)]
    mean = float(np.mean(values)) if values else None
    findings = list(_findings(info, where, examined))
    all_there = complete and len(found.pairs) == facts.pairs
    if all_there and mean is not None and facts.input_psnr is not None and abs(mean - facts.input_psnr) > PSNR_TOLERANCE:
        text = f"the input has {mean:.2f} dB instead of {facts.input_psnr:.2f}: other pictures, or paired wrongly"
        findings.append(Finding("error", text))
    return SplitReport(
        split=split,
        folder=str(found.folder),
        layout=found.layout.title,
        evidence=found.layout.evidence,
        pairs=len(found.pairs),
        published=facts.pairs,
        examined=len(examined),
        scenes=len({pair.background for pair in found.pairs}),
        sizes=dict(Counter(e.size for e in examined if e.size).most_common()),
        input_psnr=mean,
        expected_psnr=facts.input_psnr,
        findings=tuple(sorted(findings, key=lambda f: ("error", "warning", "note").index(f.level))),
    )


def _findings(info: Dataset, where: Found, examined: list[_Examined]) -> Iterator[Finding]:
    found = where.match
    yield from (Finding("error", text) for text in unpaired(found))
    if broken := [e.error for e in examined if e.error]:
        yield Finding("error", f"{len(broken)} of {len(examined)} pairs cannot be used: {_first(broken, '; ')}")
    sides = [e for e in examined if e.pair.side is not None and e.psnr is not None]
    wrong = [e.pair.name for e in sides if e.wrong_side]
    if len(wrong) > len(sides) / 2:
        text = (
            f"the {sides[0].pair.side} half should be the rainy one, but in {len(wrong)} of {len(sides)} it has less detail: "
        )
        yield Finding("error", text + "the halves of this copy are the other way round, so read it by patterns of your own")
    yield from (Finding("warning", text) for text in where.notes)
    if same := [e.pair.name for e in examined if e.psnr == float("inf")]:
        yield Finding("warning", f"rainy equals clean in {len(same)} of {len(examined)} pairs: {_first(same)}")
    if lossy := [e for e in examined if e.lossy]:
        posing = [e for e in lossy if e.pair.clean and e.pair.clean.suffix.lower() == ".png"]
        formats = ", ".join(sorted({e.lossy for e in lossy}))
        text = f"the ground truth of {len(lossy)} of {len(examined)} pairs is lossy ({formats})"
        text += f", {len(posing)} of them in files named .png" if posing else ""
        yield Finding("note" if info.lossy else "warning", text + ("; so it was published" if info.lossy else ""))


def _first(texts: Iterable[str], separator: str = ", ") -> str:
    texts = list(texts)
    return separator.join(texts[:3]) + (f"{separator}..." if len(texts) > 3 else "")


# -------------------------------------------------------------------------------------------------------- between splits


def _common_scenes(thumbnails: dict[str, Thumbnails]) -> dict[str, list[tuple[str, str, int]]]:
    common: dict[str, list[tuple[str, str, int]]] = {}
    for a, b in combinations(thumbnails, 2):
        scenes_a, scenes_b = list(thumbnails[a].values()), list(thumbnails[b].values())
        matches = match_thumbnails([thumb for _, thumb in scenes_a], [thumb for _, thumb in scenes_b])
        if matches:
            common[f"{a}/{b}"] = [(scenes_a[i][0], scenes_b[j][0], apart) for i, j, apart in matches]
    return common


def _overall(info: Dataset, found: dict[str, Found], common: dict[str, list[tuple[str, str, int]]]) -> Iterator[Finding]:
    for splits, pairs in common.items():
        a, b = splits.split("/")
        names = _first(f"{x} and {y}" for x, y, _ in pairs)
        count = len({y for _, y, _ in pairs})
        yield Finding("warning", f"{count} of the pictures of {b} show scenes of {a}: {names}")
    for split in found:
        this = f"{info.name}/{split}"
        for known in known_overlaps(this):
            yield Finding("note", f"{split} and {known.b if known.a == this else known.a} show common scenes: {known.what}")
