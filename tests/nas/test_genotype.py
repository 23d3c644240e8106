"""Genotypes: one architecture, one hash, one file, one picture."""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from derainzoo import create_model
from derainzoo.errors import DerainzooError
from derainzoo.models import autoderain, manas
from derainzoo.nas.drawing import COLOURS, draw
from derainzoo.nas.genotype import SYSTEMS, Genotype


def sample(system: str, seed: int = 0, **settings) -> Genotype:
    return Genotype.random(system, np.random.default_rng(seed), **settings)


@pytest.mark.parametrize("system", SYSTEMS)
def test_file_and_back(system, tmp_path):
    genotype = Genotype(system, sample(system).choices, seed=7, search={"steps": 40, "alpha": [[0.5, 0.25]]})
    genotype.save(tmp_path / "genotype.json")
    assert Genotype.load(tmp_path / "genotype.json") == genotype
    assert Genotype.load(str(tmp_path / "genotype.json")).search["alpha"] == [[0.5, 0.25]]
    assert [p.name for p in tmp_path.iterdir()] == ["genotype.json"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "genotype.json"
    sample("manas").save(path)
    before = path.read_text()

    def full_disk(self, text, **_):
        self.write_bytes(text[:20].encode())
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(DerainzooError, match="no space"):
        sample("manas", 1).save(path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["genotype.json"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_network_from_the_arguments(system):
    small = {"manas": {"width": 4}, "autoderain": {"width": 4, "blocks": (1, 2, 1)}}[system]
    genotype = sample(system, **small)
    arguments = json.loads(json.dumps(genotype.model_arguments()))  # what a checkpoint keeps
    net = create_model(genotype.system, **arguments).eval()
    with torch.inference_mode():
        assert net(torch.rand(1, 3, 9, 9)).shape == (1, 3, 9, 9)
    arguments["operations"].clear()
    assert genotype.model_arguments()["operations"]  # what is handed out is a copy


def test_hash_does_not_change():
    """Written down: hashes stand in the names of files and in tables."""
    assert Genotype("manas", {}).hash == "4e3165389d73"
    assert Genotype("autoderain", {}).hash == "18adb57b64bc"


def test_hash_is_of_the_architecture_alone():
    short = Genotype("manas", {"operations": "sep+dil+skip", "cells": "pfpfpfpfpfpf"}, seed=1)
    long = Genotype("manas", {"operations": ["sep + dil + skip"] * 9, "width": 32}, search={"steps": 3})
    assert short.hash == long.hash
    assert short != long
    assert Genotype("manas", short.choices) == Genotype("manas", long.choices)
    assert len({Genotype("manas", short.choices), Genotype("manas", long.choices)}) == 1
    others = [
        Genotype("manas", {"width": 16}),
        Genotype("manas", {"stem": True}),
        Genotype("manas", {"cells": "FPPF PFPF PFPF"}),
        Genotype("manas", {"operations": ["sep+dil+skip"] * 8 + ["sep+dil+se"]}),
        Genotype("autoderain", {}),
        Genotype("autoderain", {"blocks": [1, 1, 3]}),
    ]
    assert len({short.hash, *(g.hash for g in others)}) == 7


def edited(**changes) -> str:
    fields = json.loads(Genotype("autoderain", {}).to_json()) | changes
    return json.dumps({k: v for k, v in fields.items() if v is not None})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "g.json: expected a genotype in JSON, found a syntax error"),
        ("[1]", "found none of the keys choices, system, version"),
        (edited(system=None), "found none of the keys system"),
        (edited(version=9), "expected a genotype of version 1, found 9"),
        (edited(system="autodrain"), "unknown system of a genotype 'autodrain'. Did you mean 'autoderain'"),
        (edited(choices={"width": 32, "blocks": [2, 2, 4]}), "expected all choices of autoderain, found no operations"),
        (edited(choices={"widht": 32}), "unknown choice of autoderain 'widht'. Did you mean 'width'"),
        (edited(choices={"width": "32"}), "width of autoderain: expected int, found '32'"),
        (edited(choices={"blocks": 3}), "blocks of autoderain: expected list, found 3"),
        (edited(choices={"blocks": ["a", "b", "c"]}), "blocks of autoderain: expected three positive numbers"),
        (edited(choices={"operations": "conv3+conv3"}), "expected 3 names"),
        (edited(choices={"operations": [3] * 12}), "expected 3 names like .* found 3"),
        (edited(choices={"width": 16, "blocks": [2, 2, 4], "operations": "conv3+conv3+se"}), "its hash is .* hash to"),
    ],
)
def test_errors_of_files(text, words):
    with pytest.raises(DerainzooError, match=words):
        Genotype.from_json(text, "g.json")


def test_an_edited_file_without_its_hash_is_read():
    choices = {"width": 16, "blocks": [2, 2, 4], "operations": "conv3+conv3+se"}
    assert Genotype.from_json(edited(choices=choices, hash=None)) == Genotype("autoderain", {"width": 16})


def test_no_file(tmp_path):
    with pytest.raises(DerainzooError, match="expected a genotype file, found nothing at"):
        Genotype.load(tmp_path / "genotype.json")


@pytest.mark.parametrize("system", SYSTEMS)
def test_random_genotypes_follow_the_generator(system):
    assert sample(system, 3) == sample(system, 3)
    assert len({sample(system, seed).hash for seed in range(20)}) == 20


def test_random_genotypes_are_uniform():
    rng = np.random.default_rng(0)
    drawn = [Genotype.random("manas", rng).choices for _ in range(100)]
    names = Counter("+".join(o for d in drawn for o in d["operations"]).split("+"))
    assert names.keys() == set(manas.OPERATIONS)
    assert all(abs(n - 300) < 5 * 300**0.5 for n in names.values())  # 2700 draws of nine
    cells = Counter("".join(d["cells"] for d in drawn).replace(" ", ""))
    assert abs(cells["P"] - 600) < 5 * 300**0.5
    slots = [d.split("+") for _ in range(100) for d in Genotype.random("autoderain", rng).choices["operations"]]
    for i, candidates in enumerate((autoderain.SEARCHED, autoderain.SEARCHED, ("id", "se"))):
        share = Counter(s[i] for s in slots)
        assert share.keys() == set(candidates)
        expected = 1200 / len(candidates)
        assert all(abs(n - expected) < 5 * expected**0.5 for n in share.values())


def test_random_among_given_candidates():
    few = sample("autoderain", candidates=["dil2", "dil4"], blocks=(1, 1, 1), width=8)
    assert few.choices["width"] == 8
    assert sample("manas", cells="PPPP PPPP FFFF").choices["cells"] == "PPPP PPPP FFFF"
    assert {n for text in few.choices["operations"] for n in text.split("+")[:2]} == {"dil2", "dil4"}
    assert set("+".join(sample("manas", candidates=["se"]).choices["operations"]).split("+")) == {"se"}
    with pytest.raises(DerainzooError, match="unknown system"):
        sample("darts")


@pytest.mark.parametrize("genotype", [sample("manas"), sample("autoderain"), sample("autoderain", blocks=(1, 3, 2))])
def test_drawing_shows_every_choice(genotype):
    root = ET.fromstring(draw(genotype))
    svg = "{http://www.w3.org/2000/svg}"
    width, height = (float(root.get(k)) for k in ("width", "height"))
    texts = Counter(t.text for t in root.iter(f"{svg}text"))
    chosen = Counter("+".join(genotype.choices["operations"]).split("+"))
    assert all(texts[name] == n for name, n in chosen.items())
    assert f"{genotype.system} {genotype.hash}" in texts
    if genotype.system == "manas":
        cells = genotype.choices["cells"].split()
        boxes = sum(stage.count("P") * branches for stage, branches in zip(cells, (2, 3, 4), strict=True))
        assert texts["3×3"] == boxes
    for mark in (*root.iter(f"{svg}rect"), *root.iter(f"{svg}text"), *root.iter(f"{svg}circle")):
        x, y = (float(mark.get(k) or mark.get(f"c{k}") or 0) for k in "xy")
        assert 0 <= x <= width
        assert 0 <= y <= height


def test_every_operation_has_a_colour():
    assert {*manas.OPERATIONS, *autoderain.CONVOLUTIONS, *autoderain.ATTENTIONS} == set(COLOURS)


@pytest.mark.parametrize("system", SYSTEMS)
def test_drawings_of_the_model_cards_are_fresh(system):
    card = Path(__file__).parents[2] / "docs" / "models" / f"{system}.svg"
    assert card.read_text(encoding="utf-8") == draw(Genotype(system, {}))
