"""W&B never waits for a login; what it keeps is there offline."""

import pytest

from derainzoo.engine.loggers import wandb_mode
from derainzoo.engine.train import train
from runs import compose_run


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    """Nobody is logged in."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    return tmp_path


def test_offline_unless_somebody_is_logged_in(stranger, monkeypatch):
    assert wandb_mode() == "offline"
    (stranger / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


def test_a_key_in_the_environment_is_a_login(stranger, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_mode() == "online"


@pytest.mark.slow
def test_an_offline_run_is_kept_with_its_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    cfg = compose_run(tmp_path, "logger=default", "trainer.max_steps=2", "trainer.val_every=2", "callbacks.pictures=1")
    train(cfg)
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
    assert list(runs[0].glob("*.wandb"))
    assert list(runs[0].rglob("media/images/**/*.png"))
