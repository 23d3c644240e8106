"""`derainzoo data list | verify | prepare`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from derainzoo.data.catalog import dataset_info, find_pairs, find_root, format_listing
from derainzoo.data.layouts import Files
from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.files import write_text


def data(cfg: DictConfig) -> None:
    """Do what `action` says."""
    actions = {"list": show_list, "verify": verify, "prepare": prepare}
    if cfg.action not in actions:
        raise unknown_name("action of `derainzoo data`", cfg.action, actions)
    actions[cfg.action](cfg)


def show_list(cfg: DictConfig) -> None:
    """The sets that are known, and which are found in `paths.data`."""
    print(format_listing(cfg.paths.data))


def _root(cfg: DictConfig) -> Path:
    if cfg.data.name == "synthetic" and cfg.data.root is None:
        raise DerainzooError(
            "say which set: `derainzoo data verify rain200h data.root=FOLDER`; the default, synthetic, ships with derainzoo"
        )
    return Path(cfg.data.root or find_root(cfg.data.name, cfg.paths.data) or cfg.paths.data)


def verify(cfg: DictConfig) -> None:
    """Print what is wrong with a copy, and its scenes that stand in other sets; exit status 1 if anything is an error."""
    from derainzoo.data.overlap import find_overlap
    from derainzoo.data.verify import verify as examine

    patterns: Any = OmegaConf.to_container(cfg.data.files)
    files = Files(**patterns) if patterns["rainy"] else None
    began = time.perf_counter()
    report = examine(cfg.data.name, _root(cfg), files=files, at_most=cfg.at_most)
    print("\n".join(report.lines()))
    other: dict[str, list[tuple[str, str, int]]] = {}
    for against in cfg.against:
        name, _, split = against.partition("/")
        pairs = find_pairs(name, split or "test", find_root(name, cfg.paths.data) or cfg.paths.data, strict=False)
        for own in report.splits:
            mine = find_pairs(cfg.data.name, own.split, _root(cfg), files=files, strict=False)
            found = other[f"{own.split} {against}"] = find_overlap(mine, pairs)
            print(f"scenes of {own.split} that stand in {against}: {len(found)}")
            for a, b, bits in found[:20]:
                print(f"  {a} = {b} ({bits} bits apart)")
            if found[20:]:
                print(f"  and {len(found) - 20} more (all of them in the report: report=FILE.json)")
    print(f"{time.perf_counter() - began:.1f} s")
    if cfg.report:
        write_text(Path(cfg.report), json.dumps({**report.to_dict(), "against": other}, indent=2) + "\n")
    if not report.sound:
        raise SystemExit(1)


def prepare(cfg: DictConfig) -> None:
    """Write the decoded pixels of training and validation to `data.cache`, and which pictures show one scene."""
    from derainzoo.data.datamodule import make_data
    from derainzoo.data.overlap import group_scenes
    from derainzoo.data.stores import prepare as write_cache
    from derainzoo.data.stores import remember_scenes

    if cfg.data.name == "synthetic" and cfg.data.root is None:
        raise DerainzooError("the pictures that ship with the package are kept in memory: there is nothing to prepare")
    if cfg.data.cache is None:
        raise DerainzooError("data.cache=null says that there is no cache; give a folder, or leave the default")
    folder = Path(cfg.data.cache)
    paths, root = make_data(cfg).files_to_prepare()
    began = time.perf_counter()
    for done, count in write_cache(paths, root, folder):
        if done == count or done % 100 == 0:
            rate = done / (time.perf_counter() - began)
            print(f"\r{done}/{count} files, {rate:.0f}/s", end="", file=sys.stderr, flush=True)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"\n{folder}: {len(paths)} files, {size / 1e9:.2f} GB; training uses it from now on (data.cache=null does not)")
    if cfg.data.name != "synthetic" and dataset_info(cfg.data.name).hidden_scenes:
        pairs = group_scenes(find_pairs(cfg.data.name, cfg.data.train, _root(cfg), strict=False))
        remember_scenes(folder, {p.name: p.background for p in pairs})
        print(f"{len({p.background for p in pairs})} scenes in {len(pairs)} pairs: validation will share none with training")
