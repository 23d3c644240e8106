"""The command line: words become overrides, and mistakes are answered quickly and with help."""

import subprocess
import sys
import time

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from derainzoo import cli, config
from derainzoo.errors import DerainzooError


@pytest.fixture(autouse=True)
def _registered():
    config.register()


def read_back(override):
    return OverridesParser.create().parse_overrides([override])[0].value()


def test_tasks_are_words():
    assert cli.canonical(["evaluate", "model=elf"]) == ["task=evaluate", "model=elf"]
    assert cli.canonical(["model=elf", "trainer.devices=4"]) == ["model=elf", "trainer.devices=4"]
    assert cli.canonical(["data", "verify", "rain200h"]) == ["task=data", "action=verify", "data=rain200h"]
    assert cli.canonical(["-m", "model=elf,elf_lw"]) == ["-m", "model=elf,elf_lw"]
    assert cli.canonical(["train", "--cfg", "job", "seed=1"]) == ["--cfg", "job", "task=train", "seed=1"]


def test_predict_reads_like_any_command():
    words = ["predict", "a b.jpg", "c.png", "-o", "dry/", "--model", "elf", "--overwrite", "--tile=auto"]
    assert cli.canonical(words) == [
        "task=predict",
        "output=dry/",
        "model=elf",
        "overwrite=true",
        "tile=auto",
        "input=['a b.jpg',c.png]",
    ]
    assert cli.canonical(["predict", "1.png", "null", "--tile", "512"]) == [
        "task=predict",
        "tile=512",
        "input=['1.png','null']",
    ]


def test_hyphens_become_underscores_in_keys_only():
    words = ["predict", "--local-pool=128", "--output=my-dry", "--weights=runs/2026-11-21_10-00-00/best.ckpt", "--allow-random"]
    overrides = ["task=predict", "local_pool=128", "output=my-dry", "weights=runs/2026-11-21_10-00-00/best.ckpt"]
    assert cli.canonical(words) == [*overrides, "allow_random=true"]
    assert cli.canonical(["predict", "--local-pool", "128", "--output", "my-dry"]) == [
        "task=predict",
        "local_pool=128",
        "output=my-dry",
    ]


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1))
def test_any_word_survives_quoting(word):
    value = read_back(f"key={cli.quote(word)}")
    assert getattr(value, "text", value) == word


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown task 'trian'. Did you mean 'train'"),
        (["train", "photo.jpg"], "does not know what to do with 'photo.jpg'"),
        (["predict", "a.jpg", "-o"], "-o needs a value"),
        (["model=elff"], "unknown model 'elff'. Did you mean 'elf'"),
        (["-m", "model=elf,elfx"], "unknown model 'elfx'"),
        (["trainer.devcies=4"], "no setting 'trainer.devcies'. Did you mean trainer.devices"),
        (["devices=4"], "Did you mean trainer.devices"),
        (["modle=elf"], "Did you mean model"),
        (["model.dmi=8"], "Did you mean model.dim"),
        (["model.dim=wide"], "model.dim must be a whole number such as 32"),
        (["trainer.max_steps=1.5"], "trainer.max_steps must be a whole number"),
        (["trainer.benchmark=3"], "trainer.benchmark must be true or false"),
        (["trainer.devices=3"], "Use 6 or 9"),
        (["model={a"], "cannot read 'model={a'"),
    ],
)
def test_mistakes_say_what_is_close(words, message):
    with pytest.raises(DerainzooError) as error:
        config.check(cli.canonical(words))
    assert message in str(error.value)


def test_null_is_a_value_in_every_task():
    config.check(cli.canonical(["predict", "a.png", "--tile", "null"]))


def test_mistakes_end_with_status_2_and_no_traceback(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["model=elff"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown model 'elff'")


@pytest.mark.parametrize(
    "words", [["--help"], ["models"], ["--cfg", "job"], ["train", "--help"], ["model=elff"], ["--version"]]
)
def test_answers_at_once_and_without_torch(words, tmp_path):
    code = f"import sys; sys.argv = ['derainzoo', *{words!r}]\ntry:\n    from derainzoo.cli import main; main()\n"
    code += "except SystemExit: pass\nassert 'torch' not in sys.modules, 'torch was imported'"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr
    assert not list(tmp_path.iterdir())
    assert time.perf_counter() - began < 10  # two seconds on an idle machine; this one may be busy


def test_help_knows_every_task(capsys):
    cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in cli.TASKS)


@pytest.mark.parametrize("name", cli.TASKS)
def test_every_task_explains_itself(name, capsys):
    cli.main([name, "--help"])
    assert cli.TASKS[name].help in capsys.readouterr().out


def test_folders_of_jobs_are_plain_names():
    assert config.job_folder("model=elf,trainer.max_steps=5") == "model=elf,trainer.max_steps=5"
    assert "/" not in config.job_folder("data.root=/a/b c")
    assert len(config.job_folder("x" * 500)) < 130
    assert config.job_folder("x" * 500) != config.job_folder("x" * 501)
