"""Every option of every group composes, and the yaml files agree with the code."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from derainzoo import config
from derainzoo.data.catalog import dataset_info
from derainzoo.engine.optim import SCHEDULES
from derainzoo.files import config_dir
from derainzoo.losses.weighted import WeightedLoss
from derainzoo.metrics.protocol import get_protocol, metric_names
from derainzoo.models.registry import list_models, model_arguments

CONF = Path(config_dir())
GROUPS = ["task", "model", "data", "protocol", "loss", "optim", "scheduler", "trainer", "callbacks", "logger"]


def options(group):
    files = [p for p in (CONF / group).rglob("*.yaml") if p.stem != "base"]
    return sorted(p.relative_to(CONF / group).with_suffix("").as_posix() for p in files)


def composed(*overrides):
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in GROUPS for o in options(g)])
def test_option_composes(group, option):
    assert composed(f"{group}={option}")


@pytest.mark.parametrize("name", list_models())
def test_networks_have_their_arguments_in_the_configuration(name):
    arguments = OmegaConf.to_container(composed(f"model={name}").model)
    assert arguments.pop("name") == name
    arguments.pop("genotype", None)
    expected = {k: list(v) if isinstance(v, tuple) else v for k, v in model_arguments(name).items()}
    if isinstance(arguments.get("operations"), list) and isinstance(expected["operations"], str):
        expected["operations"] = [expected["operations"]]  # a list, so that the command line can give one per block
    assert arguments == expected


@pytest.mark.parametrize("option", options("data"))
def test_data_sets_are_in_the_catalog_with_their_splits(option):
    data = composed(f"data={option}").data
    if data.name == "synthetic":
        return
    info = dataset_info(data.name)
    own = [s for s in [data.train, data.val, *data.test] if s and "/" not in s]
    assert set(own) <= set(info.splits)


@pytest.mark.parametrize("option", options("loss"))
def test_losses_can_be_built(option):
    assert WeightedLoss(OmegaConf.to_container(composed(f"loss={option}").loss.terms))


@pytest.mark.parametrize("option", options("scheduler"))
def test_schedules_can_be_built(option):
    settings = OmegaConf.to_container(composed(f"scheduler={option}").scheduler, resolve=True)
    assert SCHEDULES[settings.pop("name")](**settings)(0) > 0


@pytest.mark.parametrize("option", options("protocol"))
def test_protocols_exist_and_measure_what_picks_the_best(option):
    protocol = composed(f"protocol={option}").protocol
    assert all(get_protocol(name) for name in protocol.names)
    assert protocol.monitor in metric_names(protocol.names)


@pytest.mark.parametrize("option", options("experiment"))
def test_experiments_compose_and_make_sense(option):
    text = (CONF / "experiment" / f"{option}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    cfg = composed(f"experiment={option}")
    config.check_batch(cfg.data.batch_size, cfg.trainer.devices, cfg.trainer.num_nodes, cfg.trainer.accumulate_grad_batches)
    assert WeightedLoss(OmegaConf.to_container(cfg.loss.terms))
    for stage in cfg.data.progressive or []:
        assert set(stage) == {"start", "patch", "batch"}


@pytest.mark.parametrize(("folder", "count", "name"), [("fair", 5, "fair_"), ("fair/narrow", 7, "fair_narrow_")])
def test_fair_experiments_differ_in_the_network_alone(folder, count, name):
    fair = [option for option in options("experiment") if option.rpartition("/")[0] == folder]
    assert len(fair) == count
    rest = []
    for option in fair:
        cfg = OmegaConf.to_container(composed(f"experiment={option}"), resolve=False)
        # a narrow one may take a lighter variant: elf_lw for elf
        assert cfg.pop("model")["name"].startswith(option.removeprefix(f"{folder}/"))
        cfg.pop("genotype", None)  # only some can take one
        # only one has batch normalisation
        assert (cfg["callbacks"].pop("freeze_norm") is None) == ("manas" not in option)
        rest.append(cfg)
    assert all(cfg == rest[0] for cfg in rest)
    assert rest[0]["name"] == f"{name}${{model.name}}"


def test_every_key_that_is_not_obvious_has_a_comment():
    """A file of settings without a single comment explains nothing."""
    for path in CONF.rglob("*.yaml"):
        keys = [line for line in path.read_text().splitlines() if line and not line.lstrip().startswith("#")]
        assert len(keys) < 6 or "#" in path.read_text(), path


def test_no_key_is_read_as_true():
    """`on`, `off`, `yes` and `no` are booleans in YAML 1.1: as keys they are traps."""

    def walk(node):
        if isinstance(node, dict):
            for key, value in node.items():
                assert isinstance(key, str), key
                walk(value)

    for path in CONF.rglob("*.yaml"):
        walk(yaml.safe_load(path.read_text()))
