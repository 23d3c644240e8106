"""What several test files need."""

import os
from pathlib import Path

import pytest

# one thread a test process: several share the machine, and on a loaded one two threads are slower than one
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# processes that tests start find the package too, installed or not
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Nothing goes to W&B or into the home folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Recordings and data too large for the repository; set DERAINZOO_SHARED to the folder that holds them."""
    folder = os.environ.get("DERAINZOO_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set DERAINZOO_SHARED to the folder of recordings and data to run this test")
    return Path(folder)
