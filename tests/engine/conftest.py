"""Small validation for all tests of runs: what they look at is the loop."""

import pytest


@pytest.fixture(autouse=True)
def _small_validation(monkeypatch):
    from derainzoo.data.datamodule import DerainDataModule

    whole = DerainDataModule._pictures
    monkeypatch.setattr(DerainDataModule, "_pictures", lambda self, split: whole(self, split)[: 1 if split == "val" else None])
