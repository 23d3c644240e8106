"""Runs of W&B, read back from what they wrote offline, as `wandb sync` would read them."""

import json
import subprocess
import sys
from pathlib import Path


class Run:
    """A run by its file."""

    def __init__(self, file):
        words = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", file]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        self.records = [json.loads(line) for line in done.stdout.splitlines()]
        (self.facts,) = self.written("run")
        self.folder = Path(file).parent

    def written(self, kind):
        """The records of one kind."""
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def summary(self):
        """Its last values."""
        return self._last("summary")

    @property
    def config(self):
        """Its settings."""
        return self._last("config")

    def _last(self, kind):
        found = {}
        for record in self.written(kind):
            found |= record["update"]
        return found

    def artifacts(self, kind):
        """Artifacts of a type that it uses or makes."""
        return [a for a in self.written("artifact") if a["type"] == kind]

    def table(self, key):
        """The rows of a table as they would be sent; a picture is the file that it would be sent from."""
        for artifact in self.artifacts("run_table"):
            files = {c["path"]: Path(c["local_path"]) for c in artifact["manifest"]["contents"]}
            if file := files.get(f"{key}.table.json"):
                table = json.loads(file.read_text())
                rows = [[files[v["path"]] if isinstance(v, dict) else v for v in row] for row in table["data"]]
                return [dict(zip(table["columns"], row, strict=True)) for row in rows]
        raise KeyError(key)


def only(folder):
    """The only run of a folder."""
    (run,) = runs(folder)
    return run


def runs(folder):
    """All offline runs of a folder, the oldest first."""
    return [Run(file) for file in sorted(Path(folder).glob("wandb/offline-run-*/*.wandb"))]
