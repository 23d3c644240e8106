"""Exported files do what the network does, say what they are, and are not left behind when anything is wrong."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from derainzoo import load_model
from derainzoo.errors import DerainzooError
from derainzoo.inference import export
from derainzoo.inference.export import export_network
from derainzoo.models.checkpoints import save_weights
from networks import image, restored, small
from tasks import configured

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_without_torch.py"
ARGUMENTS = {"features": 8, "blocks": 2, "iterations": 2}
FACTS = {"source": "drawn at random", "licence": "CC0-1.0"}


@pytest.fixture(scope="module")
def net():
    return small("prn")


@pytest.fixture(scope="module")
def onnx_file(net, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    report = export_network(net, path, name="prn", arguments=ARGUMENTS, facts=FACTS)
    assert report["largest_difference"] < 1e-5
    assert report["smallest_side"] == 1
    assert [p.name for p in path.parent.iterdir()] == ["net.onnx"]
    return path


def test_onnx_takes_other_sizes_and_batches_than_it_was_traced_with(net, onnx_file):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    for h, w, batch in [(1, 1, 1), (7, 31, 5), (64, 40, 1)]:
        x = image(h, w, batch)
        (found,) = session.run(None, {"image": x.numpy()})
        assert np.abs(found - restored(net, x).numpy()).max() < 1e-5


def test_onnx_says_what_it_is(onnx_file):
    import onnx

    model = onnx.load(onnx_file)
    card = json.loads({p.key: p.value for p in model.metadata_props}["derainzoo"])
    assert (card["name"], card["arguments"], card["licence"]) == ("prn", ARGUMENTS, "CC0-1.0")
    assert card["opset"] == model.opset_import[0].version == export.OPSET
    assert card["input"].startswith("image: float32 (batch, 3, height, width)")


def test_example_restores_a_picture_without_torch(net, onnx_file, tmp_path):
    pixels = (255 * image(37, 50)[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wet.png")
    words = [str(EXAMPLE), str(onnx_file), str(tmp_path / "wet.png"), str(tmp_path / "dry.png")]
    code = f"import runpy, sys; sys.argv = {words!r}; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "assert not {'torch', 'derainzoo'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "prn, weights drawn at random, licence CC0-1.0" in done.stdout
    dry = np.asarray(Image.open(tmp_path / "dry.png")).astype(int)
    expected = restored(net, torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0].clamp(0, 1)
    assert np.abs(dry - (255 * expected).round().permute(1, 2, 0).numpy()).max() <= 1
    assert len(EXAMPLE.read_text().splitlines()) <= 30


@pytest.mark.slow
@pytest.mark.parametrize(("name", "smallest"), [("prn", 1), ("nafnet", 17)])
def test_program_loads_in_another_process(name, smallest, tmp_path):
    net = small(name)
    arguments = dict(export.model_info(name).tiny)
    report = export_network(net, tmp_path / "net.pt2", name=name, arguments=arguments, facts=FACTS)
    assert report["smallest_side"] == smallest
    x = image(33, 47, batch=3)
    torch.save(x, tmp_path / "x.pt")
    code = """
import json, sys, torch
files = {"derainzoo.json": ""}
program = torch.export.load("net.pt2", extra_files=files).module()
torch.save(program(torch.load("x.pt")), "y.pt")
assert "derainzoo" not in sys.modules
print(files["derainzoo.json"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert (card["name"], card["smallest_side"], card["licence"]) == (name, smallest, "CC0-1.0")
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), restored(net, x), rtol=0, atol=1e-5)


def test_weights_alone(net, tmp_path):
    path = tmp_path / "net.safetensors"
    report = export_network(net, path, name="prn", arguments=ARGUMENTS, facts=FACTS)
    assert report["largest_difference"] == 0
    assert torch.equal(restored(load_model(path), image(9, 9)), restored(net, image(9, 9)))
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["derainzoo"])
    assert (card["licence"], card["smallest_side"]) == ("CC0-1.0", 1)


def test_the_network_stays_as_it_is(tmp_path):
    net = small("prn").double().train()
    export_network(net, tmp_path / "net.safetensors", name="prn", arguments=ARGUMENTS)
    assert net.training
    assert next(net.parameters()).dtype == torch.float64


@pytest.mark.parametrize(
    ("file", "format", "words"),
    [
        ("net.onx", None, r"suffix tells no format; give one of \.onnx \(onnx\), \.pt2"),
        ("net.onnx", "safetensors", r"ends in \.safetensors"),
        ("net.onnx", "onxn", "unknown format 'onxn'. Did you mean 'onnx'"),
        ("there.safetensors", None, "exists; allow overwriting"),
    ],
)
def test_mistakes_are_explained(file, format, words, net, tmp_path):
    (tmp_path / "there.safetensors").write_text("mine")
    with pytest.raises(DerainzooError, match=words):
        export_network(net, tmp_path / file, name="prn", arguments=ARGUMENTS, format=format)
    assert [p.name for p in tmp_path.iterdir()] == ["there.safetensors"]
    assert (tmp_path / "there.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda x: 1.001 * x, r"is not kept: at 1 x 3 x 17 x 29 it differs from the network by 0\.00\d+, more than 0\.0001"),
        (lambda x: x[..., :-1], "differs from the network by inf"),
        (lambda x: x / 0 * 0, "differs from the network by nan"),
        (lambda x: x.view(7, -1), r"is not kept, as it refuses 1 x 3 x 17 x 29: shape"),
    ],
)
def test_a_file_that_does_something_else_is_not_kept(run, words, net, tmp_path, monkeypatch):
    monkeypatch.setattr(export._Weights, "read", lambda self, path: lambda x: run(self.net(x)))
    with pytest.raises(DerainzooError, match=words):
        export_network(net, tmp_path / "net.safetensors", name="prn", arguments=ARGUMENTS)
    assert not list(tmp_path.iterdir())


def test_stated_limits_forbid_formats(net, tmp_path, monkeypatch):
    info = dataclasses.replace(export.model_info("prn"), limits={"export": "it asks for the number of raindrops"})
    monkeypatch.setattr(export, "model_info", lambda name: info)
    for file in ("net.pt2", "net.onnx"):
        with pytest.raises(DerainzooError, match="prn cannot be written as .*: it asks for the number of raindrops"):
            export_network(net, tmp_path / file, name="prn", arguments=ARGUMENTS)
    export_network(net, tmp_path / "net.safetensors", name="prn", arguments=ARGUMENTS)


def test_missing_packages_are_named(net, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", sys)
    with pytest.raises(DerainzooError, match=r"onnxscript.*pip install 'derainzoo\[onnx\]'"):
        export_network(net, tmp_path / "net.onnx", name="prn", arguments=ARGUMENTS)
    assert not list(tmp_path.iterdir())


def test_facts_must_be_plain(net, tmp_path):
    with pytest.raises(DerainzooError, match="plain values"):
        export_network(net, tmp_path / "net.pt2", name="prn", arguments=ARGUMENTS, facts={"epochs": torch.ones(1)})


def test_task_takes_the_network_from_the_weights(net, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_weights("best.safetensors", net, "prn", ARGUMENTS, licence="CC0-1.0")
    export.export(configured("export", "best.safetensors", "format=safetensors", "-o", "out/net.safetensors"))
    printed = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert printed["name"].strip() == "prn"
    assert printed["arguments"].strip() == "features=8, blocks=2, iterations=2"
    assert printed["licence"].strip() == "CC0-1.0"
    assert printed["source"].strip() == "best.safetensors"
    assert torch.equal(restored(load_model("out/net.safetensors"), image(5, 6)), restored(net, image(5, 6)))


def test_task_wants_weights_or_the_word_that_none_are_needed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DerainzooError, match="give a file of weights"):
        export.export(configured("export", "model=prn"))
    words = ["export", "model=prn", "model.features=4", "format=safetensors", "--allow-random"]
    export.export(configured(*words))
    assert load_model("prn.safetensors").head.out_channels == 4
    with pytest.raises(DerainzooError, match="exists"):
        export.export(configured(*words))
