"""Weights of any origin: recognised, read strictly or refused with a reason, and our own format."""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import derainzoo
from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import (
    convert,
    from_official,
    load_model,
    officials,
    open_weights,
    read_weights,
    recognise,
    save_weights,
)
from derainzoo.models.registry import model_arguments
from golden import read_shapes
from official_keys import as_published

Arguments = Mapping[str, Any]

PUBLISHED = [n for n in derainzoo.list_models() if derainzoo.model_info(n).system in officials()]

# name -> arguments that no published network has, all of which the shapes must tell
ODD: dict[str, Arguments] = {
    "elf": {"dim": 12, "blocks": 3, "heads": 3, "association_heads": 6},
    "prenet": {"features": 5, "blocks": 7},
    "prenet_gru": {"features": 6, "blocks": 2},
    "prenet_r": {"features": 3},
    "prn": {"features": 4, "blocks": 3},
    "prn_r": {"features": 9},
    "restormer": {
        "dim": 12,
        "blocks": [2, 1, 3, 1],
        "refinement": 2,
        "heads": [1, 3, 2, 6],
        "expansion": 2.3,
        "bias_free": True,
    },
    "drsformer": {"dim": 12, "blocks": [1, 2, 1, 3], "heads": [1, 3, 2, 6], "expansion": 1.7},
    "drsformer_plain": {"dim": 8, "blocks": [2, 1, 1, 1], "heads": [2, 1, 4, 2], "expansion": 3.0},
    "mhnet": {"width": 8, "features": 6, "encoder": [2, 1, 3, 1], "blocks": 3, "heads": 4},
    "mhnet_head": {"width": 4, "encoder": [1, 2, 1, 2], "blocks": 2, "heads": 2},
    "nafnet": {"width": 6, "encoder": [1, 3, 2], "middle": 2, "decoder": [2, 1, 1]},
    "nafnet_sidd": {"width": 4, "encoder": [2, 2, 4, 8], "middle": 12, "decoder": [2, 2, 2, 2]},
}

CASES = [(n, derainzoo.model_info(n).tiny) for n in PUBLISHED] + list(ODD.items())

WRAPPERS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "bare": lambda state: state,
    "basicsr": lambda state: {"params": {k: torch.zeros_like(v) for k, v in state.items()}, "params_ema": state},
    "data parallel": lambda state: {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}, "best": None},
    "nested, compiled": lambda state: {"model": {"generator": {f"netG._orig_mod.{k}": v for k, v in state.items()}}},
    "lightning": lambda state: {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {**{f"net.{k}": v for k, v in state.items()}, "loss.features.weight": torch.ones(3)},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-3}]}],
    },
}


def build(name: str, arguments: Arguments) -> nn.Module:
    """A network in evaluation mode whose parameters are all random, so that any two that are mixed up show."""
    torch.manual_seed(1)
    net = derainzoo.create_model(name, **arguments).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def published(name: str, net: nn.Module) -> dict[str, Tensor]:
    return as_published(derainzoo.model_info(name).system, net.state_dict())


def agree(a: nn.Module, b: nn.Module) -> bool:
    x = torch.rand(1, 3, 18, 21, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return torch.equal(a(x), b(x))


def small() -> tuple[nn.Module, dict[str, Any]]:
    arguments = {"features": 4, "blocks": 2, "iterations": 3}
    return build("prenet", arguments), arguments


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_published_weights_are_recognised_and_give_the_same_network(name: str, arguments: Arguments, tmp_path: Path) -> None:
    net = build(name, arguments)
    state = published(name, net)
    system, found, told = recognise(state)
    assert system == derainzoo.model_info(name).system
    # what shapes cannot tell must be said; nothing else may be needed
    untold = {k: v for k, v in {**model_arguments(name), **arguments}.items() if told.get(k) in (None, [])}
    torch.save(state, tmp_path / "published.pth")
    assert agree(load_model(name, weights=tmp_path / "published.pth", arguments=untold), net)
    if arguments is ODD.get(name):
        assert found == name
        assert {k: told[k] for k in arguments} == arguments
        assert agree(from_official(state, arguments=untold), net)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["prenet_r", "elf", "nafnet", "restormer"])
def test_wrappers_are_taken_off(name: str, wrapper: str, tmp_path: Path) -> None:
    arguments = derainzoo.model_info(name).tiny
    net = build(name, arguments)
    state = published(name, net)
    torch.save(WRAPPERS[wrapper](state), tmp_path / "weights.pth")
    read, _ = read_weights(tmp_path / "weights.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[k], state[k]) for k in state)


@pytest.mark.parametrize("table", ["elf3", "elf_lw", "elf_head"])
@pytest.mark.shared
def test_whole_published_tables_of_elf_load(table: str, shared: Path) -> None:
    shapes = read_shapes(shared / "golden" / "elf" / f"{table}.state_dict.tsv")
    state = {k: torch.zeros(()).expand(shape) for k, shape in shapes.items()}
    _, name, _ = recognise(state)
    assert name == {"elf3": "elf", "elf_lw": "elf_lw", "elf_head": "elf_head"}[table]
    net = from_official(state)
    assert sum(p.numel() for p in net.parameters()) == derainzoo.model_info(name).params
    assert not any(p.any() for p in net.parameters())


def test_the_list_of_elf_is_the_published_one() -> None:
    with torch.device("meta"):
        net = derainzoo.create_model("elf")
    assert len(published("elf", net)) == 632  # PReLUs under all their names


# --- what is refused --------------------------------------------------------------------------------------------------------


def test_every_tensor_counts() -> None:
    state = published("nafnet", build("nafnet", ODD["nafnet"]))
    cases = {
        "decoders.0.0.conv4.weight": (None, r"decoders\.0\.0\.expand2\.weight: expected 48x24x1x1, found none"),
        "encoders.0.0.surprise": (torch.ones(2, 3), r"encoders\.0\.0\.surprise: expected none, found 2x3"),
        "ending.weight": (torch.ones(3, 6, 5, 5), r"ending\.weight: expected 3x6x3x3, found 3x6x5x5"),
    }
    for key, (tensor, message) in cases.items():
        changed = {k: v for k, v in state.items() if k != key}
        if tensor is not None:
            changed[key] = tensor
        with pytest.raises(DerainzooError, match=message) as caught:
            from_official(changed)
        assert "tensors that do not fit: 1" in str(caught.value)


def test_dead_weights_are_named(tmp_path: Path) -> None:
    arguments = {**derainzoo.model_info("elf_lw").tiny}
    net = build("elf_lw", arguments)
    state = published("elf_lw", net)
    key = "dsnet.former.0.ffn.act1.weight"  # the GELU variants carry PReLU slopes that nothing reads
    torch.save({**state, key: torch.ones(1)}, tmp_path / "elf.pth")
    opened = open_weights(tmp_path / "elf.pth")
    assert opened.unused == (key,)
    assert agree(opened.net, net)


def test_unknown_files_hear_what_comes_closest() -> None:
    state = published("restormer", build("restormer", ODD["restormer"]))
    del state["output.weight"]
    state["head.weight"] = torch.ones(3)
    with pytest.raises(DerainzooError) as caught:
        from_official(state)
    first, closest, *_ = str(caught.value).splitlines()
    assert "First keys: patch_embed.proj.weight" in first
    assert closest.strip().startswith("restormer: 9")
    assert "lacks output.weight" in closest
    assert "head.weight" in closest
    with pytest.raises(DerainzooError, match="No name fits"):
        from_official({"conv9.weight": torch.ones(1)})


def test_incomplete_files_of_a_known_system_are_not_half_loaded() -> None:
    state = published("restormer", build("restormer", ODD["restormer"]))
    with pytest.raises(DerainzooError, match=r"looks like restormer.*KeyError: 'latent\.0"):
        from_official({k: v for k, v in state.items() if not k.startswith("latent.")})


def test_ambiguous_files_name_the_candidates() -> None:
    state = {
        **published("nafnet", build("nafnet", derainzoo.model_info("nafnet").tiny)),
        **published("prenet", build("prenet", derainzoo.model_info("prenet").tiny)),
    }
    with pytest.raises(DerainzooError, match="weights of nafnet or prenet"):
        from_official(state)


def test_networks_outside_the_zoo_say_so() -> None:
    grey = published("restormer", build("restormer", ODD["restormer"]))
    grey["patch_embed.proj.weight"] = grey["patch_embed.proj.weight"][:, :1]
    with pytest.raises(DerainzooError, match="RGB images here; these weights take 1 channel"):
        from_official(grey)
    blind = published("prenet", small()[0])
    blind["conv0.0.weight"] = blind["conv0.0.weight"][:, :3]
    with pytest.raises(DerainzooError, match="this one sees 3"):
        from_official(blind)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["DERAINZOO_TEST_BOMB"],)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERAINZOO_TEST_BOMB", str(tmp_path / "ran"))
    state = small()[0].state_dict()
    for entry in (_Bomb(), argparse.Namespace(lr=1), nn.PReLU()):
        for zipped in (True, False):
            torch.save({"state_dict": state, "extra": entry}, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
            with pytest.raises(DerainzooError, match=r"bad\.pth: refused, because reading '.*' .*weights_only=False"):
                read_weights(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


def test_broken_files_say_what_they_are(tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(50, 50), "b.weight": torch.ones(50)}
    torch.save(state, tmp_path / "zip")
    torch.save(state, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "safe")
    whole = {name: (tmp_path / name).read_bytes() for name in ("zip", "legacy", "safe")}
    assert all(read_weights(tmp_path / name)[0].keys() == state.keys() for name in whole)

    def refusal(content: bytes) -> str:
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(DerainzooError) as caught:
            read_weights(tmp_path / "broken")
        return str(caught.value)

    assert "it is empty" in refusal(b"")
    assert "it begins with b'hello" in refusal(b"hello, these are no weights")
    assert "a web page" in refusal(b"<!DOCTYPE html><html>quota exceeded</html>")
    assert "Git LFS pointer" in refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for name, content in whole.items():
        for length in (len(content) - 3, len(content) // 2):
            assert "damaged or" in refusal(content[:length]), (name, length)
    with pytest.raises(DerainzooError, match="found a folder"):
        read_weights(tmp_path)
    with pytest.raises(DerainzooError, match="found nothing"):
        read_weights(tmp_path / "missing.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(DerainzooError, match=r"no tensors found.*'epoch'"):
        read_weights(tmp_path / "empty.pth")
    torch.save([torch.ones(3)], tmp_path / "list.pth")
    with pytest.raises(DerainzooError, match="found a list"):
        read_weights(tmp_path / "list.pth")


# --- our own format and load_model ------------------------------------------------------------------------------------------


def test_own_files_say_how_to_build_the_network(tmp_path: Path) -> None:
    net, arguments = small()
    path = tmp_path / "deep" / "net.safetensors"
    net.to(memory_format=torch.channels_last)
    save_weights(path, net, "prenet", arguments, licence="CC0-1.0", epochs=3)
    net.to(memory_format=torch.contiguous_format)
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["derainzoo"])
    assert card == {
        "format": 1,
        "derainzoo": derainzoo.__version__,
        "name": "prenet",
        "arguments": arguments,
        "licence": "CC0-1.0",
        "epochs": 3,
    }
    loaded = derainzoo.load_model(path)
    assert agree(loaded, net)
    assert not loaded.training
    assert open_weights(path).facts == {"licence": "CC0-1.0", "epochs": 3}
    assert load_model(path, arguments={"iterations": 5}).iterations == 5
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]


def test_half_precision_and_wrapped_networks_are_saved_and_come_back_in_float32(tmp_path: Path) -> None:
    net, arguments = small()
    wrapped = nn.DataParallel(torch.compile(net.half(), backend="eager"))
    save_weights(tmp_path / "half.safetensors", wrapped, "prenet", arguments)
    assert {t.dtype for t in read_weights(tmp_path / "half.safetensors")[0].values()} == {torch.float16}
    loaded = load_model(tmp_path / "half.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert agree(loaded, net.float())


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, arguments = small()
    path = tmp_path / "net.safetensors"
    with pytest.raises(DerainzooError, match=r"written as \.safetensors"):
        save_weights(tmp_path / "net.pth", net, "prenet", arguments)
    with pytest.raises(DerainzooError, match="not written, as the network is no prenet"):
        save_weights(path, net, "prenet", {**arguments, "features": 5})
    with pytest.raises(DerainzooError, match="must be plain values"):
        save_weights(path, net, "prenet", arguments, loss=net)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_weights(path, net, "prenet", arguments)
    assert not list(tmp_path.iterdir())


def test_headers_of_other_times_are_refused(tmp_path: Path) -> None:
    for header, message in [
        ('{"format": 2, "name": "prenet", "arguments": {}}', "format 2, this derainzoo reads format 1"),
        ('{"format": 1}', "not what derainzoo writes"),
        ("nonsense", "not what derainzoo writes"),
        ('{"format": 1, "name": "prenot", "arguments": {}}', "unknown network 'prenot'. Did you mean 'prenet'"),
        ('{"format": 1, "name": "prenet", "arguments": {"dims": 3}}', "unknown argument of network 'prenet' 'dims'"),
    ]:
        save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors", metadata={"derainzoo": header})
        with pytest.raises(DerainzooError, match=message) as caught:
            load_model(tmp_path / "x.safetensors")
        assert "x.safetensors" in str(caught.value)


def test_a_name_may_stand_beside_the_file(tmp_path: Path) -> None:
    net, arguments = small()
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    torch.save(published("prenet", net), tmp_path / "published.pth")
    save_weights(tmp_path / "own.safetensors", net, "prenet", arguments)
    for file in ("bare.pth", "published.pth", "own.safetensors"):
        assert agree(load_model("prenet", weights=tmp_path / file, arguments=arguments), net)
        with pytest.raises(DerainzooError):
            load_model("prn", weights=tmp_path / file, arguments=arguments)
    torch.save({k: v for k, v in net.state_dict().items() if k != "tail.bias"}, tmp_path / "short.pth")
    with pytest.raises(DerainzooError, match=r"tensors that do not fit: 1\n  tail\.bias: expected 3, found none"):
        load_model("prenet", weights=tmp_path / "short.pth", arguments=arguments)
    with pytest.raises(DerainzooError, match="holds a network 'prenet', not 'prn'"):
        load_model("prn", weights=tmp_path / "own.safetensors")
    assert load_model("prenet_real", weights=tmp_path / "published.pth").late  # what shapes do not tell, a name may
    with pytest.raises(DerainzooError, match="own names of prenet, but does not say which"):
        load_model(tmp_path / "bare.pth")


def test_names_without_weights_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="'prn_r' has random weights"):
        assert not load_model("prn_r").training
    with pytest.raises(DerainzooError, match=r"unknown network 'prn_q'.*Nor is there a file of this name"):
        load_model("prn_q")
    with pytest.raises(DerainzooError, match="unknown network 'prn_q'"):
        load_model("prn_q", weights="x.pth")


def test_checkpoints_of_our_training_need_no_more_than_themselves(tmp_path: Path) -> None:
    net, arguments = small()
    checkpoint = {
        "pytorch-lightning_version": "2.6.6",
        "epoch": 3,
        "state_dict": {**{f"net._orig_mod.{k}": v for k, v in net.state_dict().items()}, "metric.total": torch.ones(1)},
        "hyper_parameters": {"model": {"name": "prenet", "arguments": arguments}, "optim": {"lr": 1e-3}},
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert agree(load_model(tmp_path / "last.ckpt"), net)
    assert open_weights(tmp_path / "last.ckpt").arguments == arguments


@pytest.mark.slow
def test_lightning_writes_such_checkpoints(tmp_path: Path) -> None:
    from derainzoo._compat import ensure_torchvision_importable

    ensure_torchvision_importable()
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self, model: dict[str, Any]) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = build(model["name"], model["arguments"])

    _, arguments = small()
    module = Module({"name": "prenet", "arguments": arguments})
    trainer = pl.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert agree(load_model(tmp_path / "last.ckpt"), module.net.eval())


# --- convert ----------------------------------------------------------------------------------------------------------------


def test_convert_keeps_the_origin(tmp_path: Path) -> None:
    net, arguments = small()
    source, target = tmp_path / "net_latest.pth", tmp_path / "net.safetensors"
    torch.save(published("prenet", net), source)
    summary = convert(source, target, arguments={"iterations": 3}, note="trained on drizzle")
    assert summary["name"] == "prenet"
    assert summary["arguments"] == arguments
    assert summary["parameters"] == sum(p.numel() for p in net.parameters())
    assert agree(load_model(target), net)
    facts = open_weights(target).facts
    assert facts["source"] == "net_latest.pth"
    assert len(facts["source_sha256"]) == 64
    assert facts["licence"] == "not stated (authors' code: none stated)"
    assert facts["note"] == "trained on drizzle"

    assert not open_weights(target).published
    assert convert(source, tmp_path / "real.safetensors", name="prenet_real")["name"] == "prenet_real"
    assert load_model(tmp_path / "real.safetensors").late

    with pytest.raises(DerainzooError, match="exists; allow overwriting"):
        convert(source, target)
    convert(target, target, licence="CC0-1.0", overwrite=True)
    assert open_weights(target).facts == {**facts, "licence": "CC0-1.0"}
