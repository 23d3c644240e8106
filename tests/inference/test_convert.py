"""The task that converts weights, and what it says about them."""

import hashlib

import pytest
import torch

from derainzoo import load_model
from derainzoo.errors import DerainzooError
from derainzoo.inference.convert import convert
from networks import image, restored, small
from official_keys import as_published
from tasks import configured


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published file of PReNet, with a tensor in it that nothing reads."""
    monkeypatch.chdir(tmp_path)
    net = small("prenet")
    torch.save({"state_dict": as_published("prenet", net.state_dict())}, "old.pth")
    return net


def said(capsys) -> dict[str, str]:
    return {key.strip(): value.strip() for key, value in (line.split("  ", 1) for line in capsys.readouterr().out.splitlines())}


def test_says_what_it_found(published, capsys):
    convert(configured("convert", "old.pth", "new.safetensors", "note=for the test"))
    printed = said(capsys)
    assert printed["found"] == "published weights of prenet"
    assert printed["name"] == "prenet"
    assert printed["arguments"] == "features=8, blocks=2"
    assert printed["tensors"] == f"{len(published.state_dict())}, all there are"
    assert printed["parameters"] == f"{sum(p.numel() for p in published.parameters()):,}"
    with open("old.pth", "rb") as file:
        assert printed["source sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    assert printed["note"] == "for the test"
    published.iterations = 6  # of which the file knows nothing
    assert torch.equal(restored(load_model("new.safetensors"), image(8, 9)), restored(published, image(8, 9)))


def test_what_the_file_does_not_tell_can_be_said(published, capsys):
    convert(configured("convert", "old.pth", "new.safetensors", "model=prenet_real", "model.iterations=2"))
    assert said(capsys)["arguments"] == "features=8, blocks=2, iterations=2"
    net = load_model("new.safetensors")
    assert (net.iterations, net.late) == (2, True)


def test_refuses_to_replace_a_file_unless_told_to(published):
    convert(configured("convert", "old.pth", "new.safetensors"))
    with pytest.raises(DerainzooError, match="exists"):
        convert(configured("convert", "old.pth", "new.safetensors"))
    convert(configured("convert", "old.pth", "new.safetensors", "--overwrite"))


def test_asks_for_what_is_missing():
    with pytest.raises(DerainzooError, match="`derainzoo convert` needs target"):
        configured("convert", "old.pth")
