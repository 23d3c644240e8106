"""Where the pictures of a data set lie, written as patterns, and the pairs that match them in a folder.

A layout says for every split what the path of a rainy picture looks like, and what that of its clean partner:

    Files("Rain1400/rainy_image/{n}_{k}.jpg", "Rain1400/ground_truth/{n}.jpg")

A rainy and a clean file whose common fields are equal are a pair. In a pattern

    {n}                     a field of one letter is a number: 7, 07 and 007 are the same
    {scene}                 any longer field is text within one name of a file or folder
    {density:heavy|light}   one of these words, in any letter case
    {*}, {*:input|rainy}    text, or one of these words, that is no field: it may differ between the two sides
    {path}                  at the end: every picture below this folder, however deep

Extensions stand there as information only: re-encoded copies match too. Letter case never counts, nor do spaces, hyphens and
underscores in the names of folders.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.images import EXTENSIONS, read_image

if TYPE_CHECKING:
    import numpy as np

Side = Literal["left", "right"]
Density = Literal["light", "medium", "heavy"]
Evidence = Literal["verified", "loader", "readme", "hint"]
"""How we know a layout: seen on real files, read in a published loader, said by the authors, or hearsay."""

Fields = Mapping[str, str]


@dataclass(frozen=True)
class Files:
    """Patterns of one split, relative to the folder that holds the set."""

    rainy: str
    clean: str | tuple[str, ...] | None = None
    """Equal to `rainy` where both halves stand in one file; several are tried in turn; None where there is no ground truth."""
    side: Side | None = None
    """Which half of a side-by-side picture is the rainy one."""
    name: str | None = None
    """Template of a pair's name, e.g. `{n}_{k}`; by default all fields of `rainy`, joined by an underscore."""
    background: str | None = None
    """Template of what the rainy versions of one scene have in common; by default the fields of `clean`."""
    only: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Number field -> first and last value that belong to this split, where splits share a folder."""
    spare_clean: bool = False
    """Clean pictures without a rainy partner are normal here."""
    listing: str | None = None
    """A text file with a rainy and a clean path per line, which replaces the search; `rainy` still says what the fields are."""

    def __post_init__(self) -> None:
        if self.side not in (None, "left", "right"):
            raise DerainzooError(f"the rainy half of a side-by-side picture is 'left' or 'right', not {self.side!r}")

    @property
    def clean_patterns(self) -> tuple[str, ...]:
        """None, one or several."""
        return (self.clean,) if isinstance(self.clean, str) else self.clean or ()


@dataclass(frozen=True)
class Layout:
    """One customary way to store a set: split -> where its files are."""

    title: str
    evidence: Evidence
    splits: Mapping[str, Files]


@dataclass(frozen=True)
class Pair:
    """A rainy picture and its clean one."""

    name: str
    """Unique in its split, and the same wherever the set is stored: the key of per-image results."""
    rainy: Path
    clean: Path | None
    """The same file as `rainy` if `side` says that both stand side by side in it; None without ground truth."""
    background: str
    """Equal for all rainy versions of one scene."""
    side: Side | None = None
    density: Density | None = None


def read_pair(pair: Pair) -> "tuple[np.ndarray, np.ndarray | None]":
    """Decode both pictures, `(H, W, 3)` RGB; side-by-side files are cut in the middle."""
    rainy = read_image(pair.rainy)
    if pair.side is None:
        return rainy, None if pair.clean is None else read_image(pair.clean)
    width = rainy.shape[1]
    if width % 2:
        raise DerainzooError(f"{pair.rainy}: expected two pictures of equal width side by side, found an odd width of {width}")
    left, right = rainy[:, : width // 2], rainy[:, width // 2 :]
    rainy, clean = (left, right) if pair.side == "left" else (right, left)
    return rainy, None if pair.clean is None else clean


# -------------------------------------------------------------------------------------------------- patterns and folders


class Tree:
    """Folders, each listed at most once. Hidden files and folders do not exist for it."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[list[str], list[str]]] = {}

    def entries(self, folder: Path) -> tuple[list[str], list[str]]:
        """Names of its folders, and of its other files; both empty if there is no such folder."""
        if folder not in self._seen:
            folders: list[str] = []
            files: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith("."):
                            (folders if entry.is_dir() else files).append(entry.name)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise DerainzooError(f"cannot list the folder {folder}: {error.strerror or error}") from error
            self._seen[folder] = (sorted(folders), sorted(files))
        return self._seen[folder]


def folder_key(name: str) -> str:
    """What counts of a folder's name."""
    return re.sub(r"[-_ ]", "", name).lower()


def natural_key(text: str) -> list[str | int]:
    """Sorts 2 before 10."""
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(re.split(r"(\d+)", text))]


def is_picture(name: str) -> bool:
    """By the extension."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


_FIELD = re.compile(r"\{(\*|\w+)(?::([^}]*))?\}")


def _is_number(key: str) -> bool:
    return len(key) == 1 and key != "*"


@dataclass(frozen=True)
class _Name:
    """The pattern of one name between two slashes."""

    regex: re.Pattern[str]
    words: frozenset[str]
    """If it is a word or an unnamed choice of words: these, as `folder_key`s."""
    choices: frozenset[str]
    """Fields that are a choice of words."""

    @staticmethod
    def parse(text: str) -> "_Name":
        regex, position, choices = "", 0, set[str]()
        for match in _FIELD.finditer(text):
            key, choice = match.groups()
            if choice is not None:
                content = "|".join(map(re.escape, choice.split("|")))
                choices.add(key)
            else:
                content = r"\d+" if _is_number(key) else ".+?"
            regex += re.escape(text[position : match.start()])
            if key == "*":
                regex += f"(?:{content})"
            else:  # the second time it must be the same text
                regex += f"(?P={key})" if f"(?P<{key}>" in regex else f"(?P<{key}>{content})"
            position = match.end()
        regex += re.escape(text[position:])
        unnamed = re.fullmatch(r"\{\*:([^}]*)\}", text)
        words = unnamed[1].split("|") if unnamed else [] if "{" in text else [text]
        return _Name(re.compile(regex, re.IGNORECASE), frozenset(map(folder_key, words)), frozenset(choices))

    def read(self, text: str, so_far: Fields) -> Fields | None:
        """`so_far` with the fields in `text`; None where it does not match or contradicts them."""
        match = self.regex.fullmatch(text)
        if match is None:
            return None
        new = match.groupdict()
        new |= {key: value.lower() for key, value in new.items() if key in self.choices}
        new |= {key: str(int(value)) for key, value in new.items() if _is_number(key) and key not in self.choices}
        return {**so_far, **new} if all(so_far.get(key, value) == value for key, value in new.items()) else None


@dataclass(frozen=True)
class Pattern:
    """A path with fields in it; see the top of this file."""

    text: str
    names: tuple[_Name, ...]
    fields: tuple[str, ...]

    @staticmethod
    @cache
    def parse(text: str) -> "Pattern":
        """Compile it, once."""
        stem = os.path.splitext(text)[0] if is_picture(text) else text
        fields = dict.fromkeys(key for key, _ in _FIELD.findall(stem) if key != "*")
        return Pattern(text, tuple(_Name.parse(name) for name in stem.split("/")), tuple(fields))

    def walk(self, tree: Tree, folder: Path) -> Iterator[tuple[Path, Fields]]:
        """The pictures below `folder` whose path matches."""
        return self._walk(tree, folder, 0, {})

    def _walk(self, tree: Tree, folder: Path, depth: int, so_far: Fields) -> Iterator[tuple[Path, Fields]]:
        name = self.names[depth]
        folders, files = tree.entries(folder)
        if depth < len(self.names) - 1:
            for text in folders:
                fields = so_far if folder_key(text) in name.words else name.read(text, so_far)
                if fields is not None:
                    yield from self._walk(tree, folder / text, depth + 1, fields)
            return
        for text in filter(is_picture, files):
            fields = name.read(os.path.splitext(text)[0], so_far)
            if fields is not None:
                yield folder / text, fields
        if "path" in name.regex.groupindex:
            for text in folders:
                if (folder / text).is_symlink():  # might lead round in a circle
                    continue
                for path, fields in self._walk(tree, folder / text, depth, so_far):
                    yield path, {**fields, "path": f"{text}/{fields['path']}"}

    def read(self, path: str) -> Fields | None:
        """The fields in a path that is written somewhere; its first names may be folders above the pattern."""
        texts = os.path.splitext(path)[0].split("/")[-len(self.names) :]
        fields: Fields | None = {}
        for name, text in zip(self.names, texts, strict=False):
            fields = name.read(text, fields) if fields is not None else None
        return fields if len(texts) == len(self.names) else None

    def begins_with(self, names: tuple[str, ...]) -> bool:
        """Whether its first folders are words that include these names."""
        return len(names) < len(self.names) and all(folder_key(n) in p.words for n, p in zip(names, self.names, strict=False))

    def example(self) -> str:
        """A path that matches: 1 for a number, the first word of a choice."""

        def fill(match: re.Match[str]) -> str:
            key, choice = match.groups()
            if choice is not None:
                return choice.split("|")[0]
            return "1" if _is_number(key) else "..." if key == "*" else f"<{key}>"

        return _FIELD.sub(fill, self.text)


def anchors(tree: Tree, root: Path, rainy: Pattern, own_folders: frozenset[str]) -> Iterator[tuple[Path, bool]]:
    """Where the pattern may begin if somebody points at `root`: there, in the set's own folder inside it, or above it.

    Above means that root is itself one of the pattern's first folders: `.../Rain200H/train` is a good answer to the question
    where `Rain200H/train/input/1.png` is. The second value says whether a name on the way belongs to this set alone.
    """
    named = any(name.words & own_folders for name in rainy.names)
    yield root, named or folder_key(root.name) in own_folders
    for child in tree.entries(root)[0]:
        if folder_key(child) in own_folders:
            yield root / child, True
    for up in range(1, min(len(rainy.names), len(root.parts))):
        if rainy.begins_with(root.parts[-up:]):
            yield root.parents[up - 1], named or folder_key(root.parents[up - 1].name) in own_folders


# ------------------------------------------------------------------------------------------------------ pairs of a split


@dataclass(frozen=True)
class Match:
    """What one layout finds in one folder; all lists are in natural order."""

    layout: Layout
    folder: Path
    pairs: tuple[Pair, ...]
    rainy_alone: tuple[Path, ...]
    clean_alone: tuple[Path, ...]
    doubts: tuple[str, ...]
    """Files that could mean two things."""
    left_out: tuple[Path, ...]
    """Pictures in the same folders that fit no pattern."""


def match(tree: Tree, layout: Layout, split: str, folder: Path) -> Match:
    """Pair what lies in `folder` as `layout` says."""
    files = layout.splits[split]
    rainy = Pattern.parse(files.rainy)
    cleans = [Pattern.parse(clean) for clean in files.clean_patterns]
    name_of, background_of = _templates(files, rainy, cleans)

    found: list[tuple[Path, Path | None, Fields]] = []
    clean_found: list[Path] = []
    doubts: list[str] = []
    if files.listing is not None:
        found.extend(_listed(folder / files.listing, rainy))
    else:
        partners = [_Partners(files, tree, folder, rainy, clean) for clean in cleans]
        clean_found = [path for p in partners for path in p.paths]
        for path, fields in _belonging(files, rainy.walk(tree, folder)):
            candidates = next(filter(None, (p.of(path, fields) for p in partners)), [])
            if len(candidates) > 1:
                doubts.append(f"{path} could belong to {candidates[0]} and to {candidates[1]}")
            found.append((path, candidates[0] if candidates else None, fields))

    names = Counter(name_of.format_map(fields) for *_, fields in found)
    pairs: dict[str, Pair] = {}
    alone: list[Path] = []
    for path, clean, fields in found:
        if cleans and clean is None:
            alone.append(path)
            continue
        name = name_of.format_map(fields)
        if names[name] > 1:  # 1.png beside 1.jpg
            name += path.suffix.lower()
        if name in pairs:
            doubts.append(f"{pairs[name].rainy} and {path} would both be called '{name}'")
        density = cast("Density | None", fields.get("density"))
        pairs[name] = Pair(name, path, clean, background_of.format_map(fields), files.side, density)
    used = {pair.clean for pair in pairs.values()}
    spare = [] if files.spare_clean else [path for path in clean_found if path not in used]
    left_out = [] if files.listing else _left_out(tree, [rainy, *cleans], [*(path for path, *_ in found), *clean_found])
    return Match(
        layout,
        folder,
        tuple(sorted(pairs.values(), key=lambda pair: natural_key(pair.name))),
        tuple(sorted(alone, key=_path_key)),
        tuple(sorted(spare, key=_path_key)),
        tuple(doubts),
        tuple(left_out),
    )


def _templates(files: Files, rainy: Pattern, cleans: list[Pattern]) -> tuple[str, str]:
    """Of the name and of the background of a pair."""
    if not rainy.fields:
        raise DerainzooError(f"the pattern '{files.rainy}' has no field, such as {{name}}, to call its pictures by")
    shared = [key for key in rainy.fields if cleans and key in cleans[0].fields]
    name = files.name or "_".join(f"{{{key}}}" for key in rainy.fields)
    background = files.background or "_".join(f"{{{key}}}" for key in shared) or name
    for template in (name, background):
        for key in re.findall(r"\{(\w*)\}", template):
            if key not in rainy.fields:
                raise unknown_name(f"field in '{template}'", key, rainy.fields, f"They are those of '{files.rainy}'.")
    return name, background


def _path_key(path: Path) -> list[str | int]:
    return natural_key(str(path))


def _listed(listing: Path, rainy: Pattern) -> Iterator[tuple[Path, Path, Fields]]:
    """The pairs that a text file names. Only the first is looked for: such a list may have a million lines."""
    if not listing.is_file():
        return
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
        paths = [text.lstrip("./") for text in line.split()]
        if not paths:
            continue
        fields = rainy.read(paths[0])
        if len(paths) != 2 or fields is None:
            raise DerainzooError(f"{listing}, line {number}: expected '{rainy.example()} CLEANPATH', found '{line[:200]}'")
        rainy_path, clean_path = (listing.parent / path for path in paths)
        if number == 1 and not (rainy_path.is_file() and clean_path.is_file()):
            raise DerainzooError(f"{listing} names {rainy_path} and {clean_path}, which are not there; unpack them beside it")
        yield rainy_path, clean_path, fields


def _left_out(tree: Tree, patterns: list[Pattern], found: list[Path]) -> Iterator[Path]:
    for folder in dict.fromkeys(path.parent for path in found):
        for name in filter(is_picture, tree.entries(folder)[1]):
            if not any(pattern.names[-1].regex.fullmatch(os.path.splitext(name)[0]) for pattern in patterns):
                yield folder / name


def _belonging(files: Files, found: Iterable[tuple[Path, Fields]]) -> Iterator[tuple[Path, Fields]]:
    for path, fields in found:
        if all(low <= int(fields[key]) <= high for key, (low, high) in files.only.items() if key in fields):
            yield path, fields


class _Partners:
    """The clean files of a split, by the fields that they share with the rainy ones."""

    def __init__(self, files: Files, tree: Tree, folder: Path, rainy: Pattern, clean: Pattern) -> None:
        self._shared = [key for key in clean.fields if key in rainy.fields]
        self._by_fields: dict[tuple[str, ...], list[Path]] = {}
        self.paths: list[Path] = []
        for path, fields in _belonging(files, clean.walk(tree, folder)):
            self.paths.append(path)
            self._by_fields.setdefault(self._key(fields), []).append(path)

    def _key(self, fields: Fields) -> tuple[str, ...]:
        return tuple(fields[key].lower() for key in self._shared)

    def of(self, rainy: Path, fields: Fields) -> list[Path]:
        """The partners of a rainy file; among 1.png and 1.jpg the one with its extension."""
        found = self._by_fields.get(self._key(fields), [])
        alike = [path for path in found if path.suffix.lower() == rainy.suffix.lower()]
        return alike if len(found) > 1 and alike else found
