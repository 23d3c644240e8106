"""W&B's pages: what they show, without a login."""

import json

import pytest

from derainzoo.bench import dashboard
from derainzoo.errors import DerainzooError
from derainzoo.metrics.protocol import metric_names
from tasks import configured

pytest.importorskip("wandb_workspaces")


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch):
    """A request would fail here: there is no key, and no host to send it to."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def spec(view):
    """Section -> kind and configuration of its panels."""
    sections = view._to_model().model_dump(mode="json", by_alias=True)["spec"]["section"]["panelBankConfig"]["sections"]
    return {s["name"]: [(p["viewType"], p["config"]) for p in s["panels"]] for s in sections}


def test_the_workspace_shows_every_metric_of_every_set():
    sections = spec(dashboard.workspace("me", "rain", ["rain12", "spa_data"], ["y8", "rgb"]))
    assert list(sections) == ["Training", "Test: rain12", "Test: spa_data", "Leaderboards", "Search"]
    shown = [metric for _, config in sections["Training"] for metric in config.get("metrics") or []]
    assert {f"val/{metric}" for metric in metric_names(["y8", "rgb"])} <= set(shown)
    bars = [config["metrics"] for kind, config in sections["Test: spa_data"] if kind == "Bar Chart"]
    assert bars == [[f"test/spa_data/{metric}"] for metric in metric_names(["y8", "rgb"])]


def test_quality_stands_against_cost_in_one_protocol_at_a_time():
    sections = spec(dashboard.workspace("me", "rain", ["rain12"], ["y8", "y"]))
    plots = [config for kind, config in sections["Test: rain12"] if kind == "Scatter Plot"]
    assert [plot["yAxis"] for plot in plots] == ["summary:test/rain12/psnr_y8", "summary:test/rain12/psnr_y"]
    assert {plot["xAxis"] for plot in plots} == {"summary:cost/gmacs"}
    assert all(plot["xAxisLogScale"] for plot in plots)


def test_the_line_through_quality_against_cost_is_the_pareto_front():
    """The best value so far as cost grows; without reference, less is better."""
    sections = spec(dashboard.workspace("me", "rain", ["rain12"], ["y8", "noref"]))
    lines = ("showMaxYAxisLine", "showMinYAxisLine", "showAvgYAxisLine")
    plots = [[config.get(line) for line in lines] for kind, config in sections["Test: rain12"] if kind == "Scatter Plot"]
    assert plots == [[True, None, None], [None, True, None]]


def test_pictures_and_groups():
    view = dashboard.workspace("me", "rain", ["rain12"], ["y8"])
    text = json.dumps(view._to_model().model_dump(mode="json", by_alias=True))
    assert "test/rain12/images" in text
    assert "val/pictures" in text
    # the networks of a benchmark are one group, and yet a bar each
    assert [key.name for key in view.runset_settings.groupby] == ["Group", "Name"]


def test_the_report_says_what_its_numbers_mean():
    report = dashboard.report("me", "rain", ["rain12", "rain100l"], ["y8", "noref"])
    kinds = [type(block).__name__ for block in report.blocks]
    assert kinds == ["H1", "P", "UnorderedList", *["H1", "PanelGrid"] * 3]
    said = " ".join(report.blocks[2].items)
    assert all(f"`{metric}`" in said for metric in metric_names(["y8", "noref"]))
    assert report.blocks[4].runsets[0].project == "rain"
    assert report.blocks[4].panels[0].metrics == ["test/rain12/psnr_y8"]


def test_the_task_writes_the_workspace(tmp_path):
    cfg = configured("dashboard", "sets=[rain12]", f"paths.output={tmp_path}")
    result = dashboard.dashboard(cfg)
    written = json.loads((tmp_path / "workspace.json").read_text())
    assert result == {"workspace": str(tmp_path / "workspace.json")}
    assert written["project"] == "derainzoo"
    assert "test/rain12/psnr_rgb" not in json.dumps(written)  # protocol y8 was not asked for more


def test_publishing_needs_to_know_whose_project_it_is(tmp_path):
    with pytest.raises(DerainzooError, match="entity"):
        dashboard.dashboard(configured("dashboard", "publish=true", f"paths.output={tmp_path}"))
