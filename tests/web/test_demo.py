"""The task: from the words of the command line to a server that restores by the one predictor."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

import derainzoo
from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import save_weights
from derainzoo.web.demo import _short, choose_weights, demo, make_server
from pictures import picture
from tasks import configured

TINY = {"dim": 8, "blocks": 1}


@pytest.fixture
def weights(tmp_path):
    files = []
    for folder in ("one", "two"):
        net = derainzoo.create_model("elf_lw", **TINY).eval()
        files.append(tmp_path / folder / "best.safetensors")
        files[-1].parent.mkdir()
        save_weights(files[-1], net, "elf_lw", TINY)
    return files


def test_networks_to_choose_from(weights):
    with make_server(configured("demo", *map(str, weights), "port=0", "device=cpu")) as server:
        assert [n["key"] for n in server.facts["networks"]] == ["one/best.safetensors", "two/best.safetensors"]
        assert server.facts["networks"][0]["label"] == "ELF · one/best.safetensors"
        assert (server.facts["random"], server.facts["local"], server.facts["max_bytes"]) == (False, True, 64_000_000)


def test_numbers_and_pictures_come_from_one_code(weights):
    """What the page hands out is what `derainzoo.derain` gives, to the bit."""
    clean = picture(3, 40, 56)
    file = io.BytesIO()
    Image.fromarray(clean).save(file, "PNG")
    with make_server(configured("demo", f"weights={weights[0]}", "port=0", "device=cpu")) as server:
        desk = server.desk
        assert desk.take_place()
        ticket = desk.hand_in("best.safetensors", file.getvalue())
        while ticket.state not in ("done", "failed"):
            pass
        assert ticket.state == "done", ticket.error
        result = np.asarray(Image.open(io.BytesIO(ticket.result)))
    assert np.array_equal(result, derainzoo.derain(clean, weights=weights[0], device="cpu"))


def test_without_weights_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr("derainzoo.models.pretrained._manifest", lambda: {"default": None, "weights": {}})
    with pytest.raises(DerainzooError, match="no weights: give a file by weights=FILE"):
        demo(configured("demo", "port=0"))
    random = configured("demo", "--allow-random", "model=elf_lw", "model.dim=8", "model.blocks=1", "port=0", "device=cpu")
    with make_server(random) as server:
        assert server.facts["random"]
        assert server.facts["networks"] == [{"key": "random weights", "label": "ELF · random weights"}]


def test_without_a_word_the_page_offers_what_ships(weights, monkeypatch):
    file = weights[0].read_bytes()
    weights[0].rename(weights[0].parent / "a.safetensors")
    entry = {"file": "a.safetensors", "sha256": hashlib.sha256(file).hexdigest(), "model": "elf_lw"}
    manifest = {
        "default": "elf_lw.b",
        "weights": {"elf_lw.a": entry, "elf_lw.b": entry, "prenet.a": entry | {"model": "prenet"}},
    }
    monkeypatch.setattr("derainzoo.models.pretrained.FOLDER", weights[0].parent)
    monkeypatch.setattr("derainzoo.models.pretrained._manifest", lambda: manifest)
    assert choose_weights(configured("demo")) == ["elf_lw.b", "elf_lw.a", "prenet.a"]
    assert choose_weights(configured("demo", "model=prenet")) == ["prenet.a"]
    assert choose_weights(configured("demo", "model=elf_lw", "model.dim=8")) == []
    assert choose_weights(configured("demo", "prenet.a", "my.ckpt", "./my.ckpt")) == ["prenet.a", "./my.ckpt"]
    with make_server(configured("demo", "elf_lw.b", "port=0", "device=cpu")) as server:
        assert server.facts["networks"] == [{"key": "elf_lw.b", "label": "ELF · elf_lw.b"}]


@pytest.mark.parametrize("words", ["places=0", "max_mb=0", "max_pixels=0", "quality=0"])
def test_settings_are_checked_before_anything_is_loaded(words, monkeypatch):
    monkeypatch.setattr("derainzoo.web.demo.make_predictor", lambda cfg: pytest.fail("loaded"))
    with pytest.raises(DerainzooError, match=words.split("=")[0]):
        demo(configured("demo", words))


def test_it_serves_until_it_is_interrupted(weights, monkeypatch, caplog):
    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr("derainzoo.web.server.Server.serve_forever", interrupted)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    caplog.set_level("INFO")
    demo(configured("demo", str(weights[0]), "port=0", "device=cpu", "--open", "host=0.0.0.0"))
    assert opened[0].startswith("http://127.0.0.1:")
    assert f"the page is at {opened[0]}" in caplog.text
    assert "everybody who reaches this machine can use the page" in caplog.text
    assert caplog.text.rstrip().endswith("the page is closed")


def test_files_are_told_apart(tmp_path):
    a, b, c = tmp_path / "a/x/best.ckpt", tmp_path / "b/x/best.ckpt", tmp_path / "c/last.ckpt"
    assert _short([a]) == ["best.ckpt"]
    assert _short([a, c]) == ["best.ckpt", "last.ckpt"]
    assert _short([a, b]) == ["a/x/best.ckpt", "b/x/best.ckpt"]
