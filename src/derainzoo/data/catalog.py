"""The data sets by name, and where their pictures are in the copy that a user has.

    find_pairs("rain200h", "test", "/data/Rain200H")   # whichever of the customary layouts lies there
    find_root("rain200h", "/data")                     # the set's own folder, by its customary names
    split_by_background(pairs, 0.1, seed=0)            # pictures for validation that show other scenes

The facts are in `sets.py`, the language of the layouts is in `layouts.py`. Importing this module is cheap.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from derainzoo.data.layouts import Files, Layout, Match, Pair, Pattern, Tree, anchors, folder_key, match, natural_key
from derainzoo.data.sets import DATASETS, OVERLAPS, Dataset, Overlap
from derainzoo.errors import DerainzooError, unknown_name

log = logging.getLogger(__name__)


def list_datasets(*, task: str | None = None) -> list[str]:
    """Names of all sets, optionally only those for a task (`derain`, `raindrop`, `deblur`, `lowlight`, `underwater`)."""
    return [name for name, info in DATASETS.items() if task in (None, info.task)]


def dataset_info(name: str) -> Dataset:
    """The facts of one set, by its name or another that is in use."""
    wanted = name.lower().replace("-", "_")
    for info in DATASETS.values():
        if wanted == info.name or wanted in info.aliases:
            return info
    raise unknown_name("data set", name, DATASETS, "A folder of your own is the set 'folder'.")


def known_overlaps(split: str, other: str | None = None) -> list[Overlap]:
    """What is known about scenes that a split, written `set/split`, has in common with another, or with any."""
    wanted = {_canonical(name) for name in (split, other) if name}
    return [overlap for overlap in OVERLAPS if wanted <= {overlap.a, overlap.b}]


def _canonical(set_and_split: str) -> str:
    name, _, split = set_and_split.partition("/")
    return f"{dataset_info(name).name}/{split}"


# ------------------------------------------------------------------------------------------------------ finding pictures


@dataclass(frozen=True)
class Found:
    """Where a split lies and what is worth knowing about that."""

    match: Match
    notes: tuple[str, ...]


def find(dataset: str, split: str, root: str | Path, *, files: Files | None = None) -> Found:
    """Try every layout of a split at `root` and take the complete one, or else the one that pairs most pictures.

    Args:
        dataset: a name from `list_datasets`.
        split: one of its splits.
        root: the set's folder, one that holds it, or one inside it.
        files: patterns to use instead of the set's own layouts.
    """
    info = dataset_info(dataset)
    if split not in info.splits:
        raise unknown_name(f"split of {info.name}", split, info.splits)
    root = Path(root).expanduser().absolute()
    layouts = [layout for layout in info.layouts if split in layout.splits]
    if files is not None:
        layouts = [Layout("your patterns", "hint", {split: files})]
    tree = Tree()
    own = frozenset(map(folder_key, info.folders))
    matches: list[tuple[bool, Match]] = []
    for layout in layouts:
        for folder, named in anchors(tree, root, Pattern.parse(layout.splits[split].rainy), own):
            candidate = match(tree, layout, split, folder)
            if candidate.pairs or candidate.rainy_alone:
                matches.append((named, candidate))
    if not matches:
        raise _not_found(info, split, root, layouts, tree)
    # `train/input` says nothing about the set: it counts only where no folder is called after the set
    any_named = any(named for named, _ in matches)
    candidates = [found for named, found in matches if named or not any_named]
    best, *others = sorted(candidates, key=lambda m: (info.splits[split].published(len(m.pairs)), len(m.pairs)), reverse=True)
    return Found(best, tuple(_notes(info, split, best, others, files)))


def find_pairs(dataset: str, split: str, root: str | Path, *, files: Files | None = None, strict: bool = True) -> list[Pair]:
    """The pairs of a split, in natural order of their names; arguments as for `find`.

    A picture without its partner is an error, unless `strict` is false: then it is left out with a warning in the log.
    """
    found = find(dataset, split, root, files=files)
    best = found.match
    problems = unpaired(best)
    where = f"{dataset} ({split}) in {best.folder}, layout '{best.layout.title}'"
    if problems and strict:
        raise DerainzooError(f"{where}: {'; '.join(problems)}. Complete the copy, or go without them by data.strict=false")
    for text in (*problems, *found.notes):
        log.warning("%s: %s", where, text)
    return list(best.pairs)


def find_root(dataset: str, data_dir: str | Path) -> Path | None:
    """Where below `data_dir` a set lies, by the names of folders that are its alone; None if it is not there.

    It is the set's own folder if all splits that are found lie in one, else `data_dir`; `find` understands both.
    """
    info = dataset_info(dataset)
    data_dir = Path(data_dir).expanduser().absolute()
    tree = Tree()
    own = frozenset(map(folder_key, info.folders))
    homes: set[Path] = set()
    for layout in info.layouts:
        for files in layout.splits.values():
            rainy = Pattern.parse(files.rainy)
            for folder, named in anchors(tree, data_dir, rainy, own):
                if not named:
                    continue
                if (folder / files.listing).is_file() if files.listing else any(rainy.walk(tree, folder)):
                    homes.add(folder if folder.is_relative_to(data_dir) else data_dir)
    return homes.pop() if len(homes) == 1 else data_dir if homes else None


def unpaired(match: Match) -> list[str]:
    """What keeps a match from being a clean list of pairs; empty if nothing does."""
    return [
        *_some("rainy picture", match.rainy_alone, "no clean partner"),
        *_some("clean picture", match.clean_alone, "no rainy partner"),
        *match.doubts[:3],
    ]


def _some(what: str, paths: Sequence[Path], lack: str) -> list[str]:
    if not paths:
        return []
    first = ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return [f"{len(paths)} {what}{'s' if len(paths) > 1 else ''} with {lack} ({first})"]


def _notes(info: Dataset, split: str, best: Match, others: list[Match], files: Files | None) -> Iterator[str]:
    facts = info.splits[split]
    if files is None and not facts.published(len(best.pairs)):
        yield f"{len(best.pairs)} pairs, where {facts.pairs} were published"
    taken = {pair.rainy for pair in best.pairs}
    for other in others:
        more = [pair.rainy for pair in other.pairs if pair.rainy not in taken]
        if more:
            if facts.pairs and facts.published(len(best.pairs)):
                why = "it is complete"
            else:
                why = "it has most pairs" if len(best.pairs) > len(other.pairs) else "it stands first in the catalog"
            yield (
                f"layout '{other.layout.title}' matches too, with {len(other.pairs)} pairs in {other.folder}, e.g. {more[0]}; "
                f"'{best.layout.title}' was taken because {why}"
            )
            break
    yield from _some("picture", best.left_out, "a name that fits no pattern, left out")


def _not_found(info: Dataset, split: str, root: Path, layouts: Sequence[Layout], tree: Tree) -> DerainzooError:
    """What was looked for, what is there, where the set comes from."""
    lines = [
        f"no pictures of {info.name} ({split}) in {root}",
        "  looked for, there or in a folder called after the set (input and target may be called rainy and clean, rain and "
        "norain, in and gt, ...; letter case, leading zeros and extensions do not matter):",
    ]
    for layout in layouts:
        files = layout.splits[split]
        partner = "".join(f" with {Pattern.parse(clean).example()}" for clean in files.clean_patterns[-1:])
        partner = f", {files.side} half rainy" if files.side else partner
        listing = f", named in {files.listing}" if files.listing else ""
        lines.append(f"    {Pattern.parse(files.rainy).example()}{partner}{listing}  ({layout.title})")
    lines.append(f"  found: {_contents(root, tree)}")
    if info.sources:
        lines.append(f"  the set comes from: {'; '.join(info.sources)}")
    lines.append("  say where it is by data.root=FOLDER, or paths.data=FOLDER (or DERAINZOO_DATA) for one that holds all sets")
    lines.append("  if the copy lies differently, say how: data.files.rainy='wet/{name}.png' data.files.clean='dry/{name}.png'")
    return DerainzooError("\n".join(lines))


def _contents(folder: Path, tree: Tree) -> str:
    if not folder.exists():
        parent = next(above for above in folder.parents if above.exists())
        return f"that folder does not exist; {parent} holds {_contents(parent, tree)}"
    if not folder.is_dir():
        return "that is a file, not a folder"
    folders, files = tree.entries(folder)
    folders = sorted(folders, key=natural_key)
    parts = [f"{name}/" for name in folders[:8]] + ([f"{len(folders) - 8} more folders"] if folders[8:] else [])
    for kind, count in Counter(Path(name).suffix.lower() or "without extension" for name in files).most_common(4):
        parts.append(f"{count} file{'s' if count > 1 else ''} {kind}")
    parts += [f"e.g. {min(files, key=natural_key)}"] if files else []
    return ", ".join(parts) or "nothing"


# ----------------------------------------------------------------------------------------------- dividing a training set


def split_by_background(pairs: Sequence[Pair], held_out: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Take whole scenes away for validation: `(rest, held out)`, each in the order of `pairs`.

    Which scenes is decided by a hash of their names, so that neither the order of files nor the machine matters, and pictures
    added later move few of the others.

    Args:
        pairs: all of them.
        held_out: how many scenes: a number of them, or, below 1, a share.
        seed: another one takes other scenes.
    """
    import hashlib

    scenes = sorted({p.background for p in pairs}, key=lambda scene: hashlib.sha256(f"{seed} {scene}".encode()).digest())
    count = round(held_out * len(scenes)) if held_out < 1 else int(held_out)
    if not 0 < count < len(scenes):
        raise DerainzooError(f"cannot hold out {held_out} of {len(scenes)} scenes; some must be held out and some must remain")
    chosen = set(scenes[:count])
    return [p for p in pairs if p.background not in chosen], [p for p in pairs if p.background in chosen]


def two_halves(pairs: Sequence[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """Two halves without a common scene, as architecture searches train weights on one and choices on the other."""
    return split_by_background(pairs, 0.5, seed)


# ----------------------------------------------------------------------------------------------------------- for readers


def _splits(info: Dataset) -> str:
    return ", ".join(f"{name} {split.pairs}" if split.pairs else name for name, split in info.whole_splits.items())


def format_listing(data_dir: str | Path | None = None) -> str:
    """All sets as a table of plain text; with `data_dir` also where there is a copy."""
    header = ["name", "task", "splits (pairs)", "licence"]
    rows = [[info.name, info.task, _splits(info), info.licence] for info in DATASETS.values()]
    if data_dir is not None:
        header.insert(3, "found")
        for row in rows:
            row.insert(3, str(find_root(row[0], data_dir) or "-"))
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown_table() -> str:
    """The table of sets in docs/data.md."""
    lines = ["| name | set | task | splits (pairs) | layouts | licence |", "|---|---|---|---|---|---|"]
    for info in DATASETS.values():
        title = f"[{info.title}]({info.url})" if info.url else info.title
        layouts = "; ".join(f"{layout.title} ({layout.evidence})" for layout in info.layouts)
        lines.append(f"| `{info.name}` | {title} | {info.task} | {_splits(info)} | {layouts} | {info.licence} |")
    return "\n".join(lines)


def markdown_notes() -> str:
    """The list below that table."""
    return "\n".join(f"- `{info.name}`: {' '.join(info.notes)}" for info in DATASETS.values() if info.notes)


def markdown_overlaps() -> str:
    """The table of common scenes in docs/data.md."""
    return "\n".join(["| | | common |", "|---|---|---|", *(f"| `{o.a}` | `{o.b}` | {o.what} |" for o in OVERLAPS)])
