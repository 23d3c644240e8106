"""The documentation: the site builds strictly, and its guides are true, for they are followed here word for word."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fake_sets

ROOT = Path(__file__).parents[1]


def run(*words, cwd, **environment):
    """Run Python in a folder; what it printed."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, *words], cwd=cwd, env=settings, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def blocks(page):
    """File name -> the code under it, for the blocks of a page that have one."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL))


@pytest.fixture
def scratch(tmp_path):
    """A copy of the repository that may be written to, and the environment in which its package is the one that is found."""
    for name in ("src", "conf", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def insert(file, text, before):
    """Put text into a file ahead of a place that is there once."""
    old = file.read_text(encoding="utf-8")
    assert old.count(before) == 1
    file.write_text(old.replace(before, text + before), encoding="utf-8")


@pytest.mark.slow
def test_the_guide_to_a_new_network(scratch):
    written = blocks("adding-a-network.md")
    assert list(written) == ["src/derainzoo/models/dncnn.py", "conf/model/dncnn.yaml"]
    for name, text in written.items():
        (scratch / name).write_text(text, encoding="utf-8")

    files = ["tests/models/test_contract.py", "tests/models/test_registry.py", "tests/test_conf.py"]
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "dncnn", *files, cwd=scratch)
    assert re.search(r"1\d passed", said)

    here = {"PYTHONPATH": str(scratch / "src")}
    assert "dncnn" in run("-m", "derainzoo", "models", cwd=scratch, **here)
    words = (
        "model=dncnn model.width=8 model.depth=3 trainer.max_steps=2 trainer.val_every=2 data.batch_size=2 data.patch_size=32"
    )
    words += " data.val_images=1 data.num_workers=0 trainer.accelerator=cpu test=false logger=csv hydra.run.dir=out"
    run("-m", "derainzoo", *words.split(), "callbacks.progress=false", cwd=scratch, **here)
    assert (scratch / "out" / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.slow
def test_a_network_of_another_package(tmp_path):
    """What the end of that guide says: an entry point, and a folder of configuration."""
    written = blocks("adding-a-network.md")
    package, facts = tmp_path / "mypackage", tmp_path / "mypackage-1.dist-info"
    for folder in (package, facts, tmp_path / "conf" / "model"):
        folder.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "dncnn.py").write_text(written["src/derainzoo/models/dncnn.py"])
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[derainzoo.models]\ndncnn = mypackage.dncnn\n")
    (tmp_path / "conf" / "model" / "dncnn.yaml").write_text(written["conf/model/dncnn.yaml"])

    here = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])}
    assert "dncnn" in run("-m", "derainzoo", "models", cwd=tmp_path, **here)
    said = run("-m", "derainzoo", "--config-dir", "conf", "model=dncnn", "--cfg", "job", cwd=tmp_path, **here)
    assert "depth: 17" in said


@pytest.mark.slow
def test_the_guide_to_a_new_data_set(scratch):
    written = blocks("adding-a-data-set.md")
    sets, fakes = scratch / "src" / "derainzoo" / "data" / "sets.py", scratch / "tests" / "fake_sets.py"
    insert(sets, written["src/derainzoo/data/sets.py"] + "\n\n", "DATASETS: Mapping")
    insert(sets, "        _DRIZZLE,\n", "        _PICTURES,\n")
    insert(fakes, written["tests/fake_sets.py"] + "\n\n", "def make(")
    (scratch / "conf" / "data" / "drizzle.yaml").write_text(written["conf/data/drizzle.yaml"])

    here = {"PYTHONPATH": str(scratch / "src")}
    page = scratch / "docs" / "data.md"
    new = run("-c", "from derainzoo.data import catalog; print(catalog.markdown_table())", cwd=scratch, **here)
    row = next(line for line in new.splitlines() if line.startswith("| `drizzle`"))
    insert(page, f"{row}\n", next(line for line in page.read_text().splitlines() if line.startswith("| `pictures`")))

    files = ["tests/data/test_catalog.py", "tests/test_conf.py"]
    said = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", "drizzle or everything or page or facts", cwd=scratch
    )
    assert re.search(r"\d+ passed", said)

    copy = {}
    exec(written["tests/fake_sets.py"], {"FAKES": copy, "Fake": fake_sets.Fake})
    for pairs in copy["drizzle"]["original"].values():
        fake_sets.write(scratch / "Drizzle500", pairs)
    said = run("-m", "derainzoo", "data", "verify", "drizzle", "data.root=Drizzle500", cwd=scratch, **here)
    assert "train: 3 of 450 pairs, 2 scenes" in said


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    run("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site"), cwd=ROOT)
    site = tmp_path / "site"
    home = (site / "index.html").read_text(encoding="utf-8")
    assert all(f"{page}.html" in home for page in ("metrics", "scaling", "adding-a-network", "notebooks/01_quickstart"))
    assert "<math" in (site / "models" / "manas.html").read_text(encoding="utf-8")
    assert "create_model" in (site / "api" / "models.html").read_text(encoding="utf-8")
