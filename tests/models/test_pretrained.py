"""Weights of the package: named, listed, verified, and what is loaded when none are named."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import derainzoo
from derainzoo.engine.setup import load_start, make_restorer
from derainzoo.errors import DerainzooError
from derainzoo.inference.export import export
from derainzoo.inference.predictor import load_network
from derainzoo.models import pretrained
from derainzoo.models.checkpoints import open_weights, save_weights
from derainzoo.models.listing import rows
from tasks import configured

ARGUMENTS = {"dim": 8, "blocks": 1}


@pytest.fixture
def net(tmp_path, monkeypatch):
    """A package that ships one small network."""
    torch.manual_seed(0)
    net = derainzoo.create_model("elf_lw", **ARGUMENTS)
    path = tmp_path / "elf_lw.rain.safetensors"
    save_weights(path, net, "elf_lw", ARGUMENTS, half=True)
    facts = {"model": "elf_lw", "file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (tmp_path / "manifest.json").write_text(json.dumps({"default": "elf_lw.rain", "weights": {"elf_lw.rain": facts}}))
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    pretrained._manifest.cache_clear()
    yield net
    pretrained._manifest.cache_clear()


def test_a_name_stands_for_its_file(net):
    opened = open_weights("elf_lw.rain")
    assert (opened.name, opened.arguments) == ("elf_lw", ARGUMENTS)
    for other in (
        opened.net,
        derainzoo.load_model("elf_lw"),
        derainzoo.load_model("elf_lw.rain"),
        load_network(),
        load_network("elf_lw.rain"),
    ):
        for key, value in other.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, net.state_dict()[key].half().float()), key
    assert derainzoo.list_models(pretrained=True) == ["elf_lw.rain"]
    assert derainzoo.list_models("elf*", pretrained=True, task="deblur") == []


def test_arguments_of_ones_own_mean_another_network(net):
    with pytest.warns(UserWarning, match="random weights"):
        assert derainzoo.load_model("elf_lw", arguments={"dim": 16}).state_dict().keys()


def test_a_changed_file_is_refused(net, tmp_path):
    with (tmp_path / "elf_lw.rain.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    with pytest.raises(DerainzooError, match=r"expected sha256 .*install derainzoo again"):
        derainzoo.load_model("elf_lw")
    (tmp_path / "elf_lw.rain.safetensors").unlink()
    with pytest.raises(DerainzooError, match="but there is nothing; install derainzoo again"):
        derainzoo.load_model("elf_lw.rain")


@pytest.mark.parametrize("load", [derainzoo.load_model, load_network])
def test_a_mistyped_name_says_what_is_close(net, load):
    with pytest.raises(DerainzooError, match=r"unknown network 'elf_lw\.rein'\. Did you mean 'elf_lw\.rain'"):
        load("elf_lw.rein")


def test_no_weights_for_a_network_says_which_there_are(net):
    with pytest.raises(DerainzooError, match=r"no weights for prenet: .*\(elf_lw\.rain\)"):
        load_network("prenet")
    with pytest.raises(DerainzooError, match="unknown network 'elff'"):
        load_network("elff", allow_random=True)


def test_a_mistyped_name_among_files_says_what_is_close(net):
    with pytest.raises(
        DerainzooError, match=r"elf_lw\.rian: a file of weights expected, found nothing; did you mean .* elf_lw\.rain"
    ):
        open_weights("elf_lw.rian")


def test_a_named_network_is_exported_with_the_weights_that_ship(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(configured("export", "model=elf_lw", "format=safetensors", "-o", "out/net.safetensors"))
    for key, tensor in derainzoo.load_model("out/net.safetensors").state_dict().items():
        assert torch.equal(tensor, net.state_dict()[key].half().float()), key


def test_the_table_says_what_size_weights_have(net):
    (_, row) = rows("elf_lw")
    assert row[5] == "rain"
    pretrained._manifest()["weights"]["elf_lw.rain"]["parameters"] = 12_345
    assert rows("elf_lw")[1][5] == "rain (0.01 M)"


def test_training_starts_from_weights_that_ship(net):
    module = make_restorer(configured("model=elf_lw", *(f"model.{key}={value}" for key, value in ARGUMENTS.items())))
    load_start(module, "elf_lw.rain")
    for key, tensor in module.net.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[key].half().float()), key
    with pytest.raises(DerainzooError, match="elf_lw: a file of weights expected"):  # a network alone says no weights
        load_start(module, "elf_lw")


def test_what_ships_is_whole_and_says_where_it_comes_from():
    """Of the package itself: every file is there, is what the manifest says, opens, and tells its story."""
    names = {weights.file for weights in pretrained.shipped().values()} | {"manifest.json"}
    assert {path.name for path in pretrained.FOLDER.iterdir()} == names
    assert sum((pretrained.FOLDER / name).stat().st_size for name in names) < 40e6
    assert pretrained.default() is None or pretrained.shipped()[pretrained.default()].path.stat().st_size < 6e6
    for name, weights in pretrained.shipped().items():
        opened = open_weights(name)
        assert name.partition(".")[0] == opened.name == weights.model
        for fact in ("trained_on", "budget", "hardware", "revision", "metrics", "licence", "limits"):
            assert weights.facts[fact], f"{name} does not say its {fact}"
        if not weights.facts["trained_on"][0].startswith("synthetic"):  # else a benchmark warns of its own held-out pictures
            assert len(opened.facts["division"]) == 3, f"{name} does not say which pictures it held out"
        assert derainzoo.derain(torch.rand(3, 24, 24), weights=name).isfinite().all()


def test_the_documents_say_what_the_manifest_says():
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "weights.md").read_text(encoding="utf-8")
    for name, weights in pretrained.shipped().items():
        card = (docs / "models" / f"{derainzoo.model_info(weights.model).system}.md").read_text(encoding="utf-8")
        assert f"../images/{name}.webp" in card
        assert (docs / "images" / f"{name}.webp").is_file()
        values = [measured["psnr_y8"] for measured in weights.facts["metrics"].values()]
        for value in (*values, *weights.facts["curve_psnr_y8"].values()):
            assert f"{value:.2f}" in text, f"{name}: {value:.2f} dB is not in docs/weights.md"


def test_the_list_needs_no_torch():
    code = "import sys, derainzoo; derainzoo.list_models(pretrained=True); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
