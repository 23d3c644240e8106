"""W&B's pages about a project as code: a workspace to work in, and a report to show.

What stands there follows from the names that runs log (`engine.records`): `val/METRIC` over the steps, `test/SET/METRIC` with
the protocol in the metric's name, `test/SET/images`, `cost/parameters`, `cost/gmacs`, and those of a benchmark's leaderboard
(`bench.recording`). Building a page asks nobody; saving it needs a login.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derainzoo.errors import DerainzooError
from derainzoo.files import write_text
from derainzoo.metrics.protocol import PROTOCOLS, metric_names

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

STEP = "trainer/global_step"
# seeds of one name are one line or bar; the networks of a benchmark, which are one group, are not
GROUPS = ["Group", "Name"]
# what a benchmark's leaderboard is logged as
LEADERBOARD, PAGE, CHART = "benchmark/leaderboard", "benchmark/page", "benchmark/quality_cost"


def dashboard(cfg: "DictConfig") -> dict[str, Any]:
    """Write the workspace as a file; save it and the report in W&B if asked to."""
    settings, protocols = cfg.logger.wandb, list(cfg.protocol.names)
    sets = list(cfg.sets or [cfg.data.name])
    if cfg.publish and not settings.entity:
        raise DerainzooError("to publish, say whose project it is: logger.wandb.entity=USER_OR_TEAM")
    view = workspace(settings.entity or "", settings.project, sets, protocols)
    file = Path(cfg.paths.output) / "workspace.json"
    write_text(file, json.dumps(view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True), indent=2) + "\n")
    log.info("workspace of %d sections for %s: %s", len(view.sections), settings.project, file)
    if not cfg.publish:
        log.info("publish=true saves it in W&B, with a report")
        return {"workspace": str(file)}
    saved = {"workspace": view.save().url, "report": report(settings.entity, settings.project, sets, protocols).save().url}
    for kind, url in saved.items():
        log.info("%-10s %s", kind, url)
    return saved


def workspace(entity: str, project: str, sets: Sequence[str], protocols: Sequence[str]) -> Any:
    """A `wandb_workspaces` workspace: one section each for training, every test set, leaderboards, and search.

    Args:
        entity: user or team.
        project: name of the project.
        sets: test sets.
        protocols: names in `derainzoo.metrics.PROTOCOLS`.
    """
    ws, wr = _modules()
    training = [wr.LinePlot(title="loss", x=STEP, y=["train/loss"], log_y=True, smoothing_factor=0.6)]
    training += [wr.LinePlot(title=f"validation, {metric}", x=STEP, y=[f"val/{metric}"]) for metric in metric_names(protocols)]
    training += [wr.MediaBrowser(title="validation pictures", media_keys=["val/pictures"], num_columns=1)]
    training += [wr.LinePlot(title="pictures a second", x=STEP, y=["train/images_per_s"])]
    searching = [wr.LinePlot(title="search", x=STEP, metric_regex="search/.*")]
    sections = [ws.Section(name="Training", panels=training, is_open=True)]
    sections += [ws.Section(name=f"Test: {name}", panels=_test_panels(name, protocols), is_open=True) for name in sets]
    sections += [ws.Section(name="Leaderboards", panels=_leaderboard_panels())]
    sections += [ws.Section(name="Search", panels=searching)]
    grouped = ws.RunsetSettings(groupby=[ws.Metric(key) for key in GROUPS])
    return ws.Workspace(entity=entity, project=project, name="derainzoo", sections=sections, runset_settings=grouped)


def report(entity: str, project: str, sets: Sequence[str], protocols: Sequence[str]) -> Any:
    """A `wandb_workspaces` report: what the numbers mean, a chapter for every test set, and leaderboards."""
    _, wr = _modules()
    meanings = [f"`{m}`: {PROTOCOLS[p].colour}; {PROTOCOLS[p].source}" for p in protocols for m in PROTOCOLS[p].metrics]
    blocks: list[Any] = [
        wr.H1("How to read the numbers"),
        wr.P("Every metric carries the name of its protocol. Numbers of different protocols do not compare."),
        wr.UnorderedList(items=meanings),
    ]
    chapters = {name: (f"runs tested on {name}", _test_panels(name, protocols)) for name in sets}
    chapters["Leaderboards"] = ("benchmarks", _leaderboard_panels())
    for title, (what, panels) in chapters.items():
        runs = wr.Runset(entity=entity, project=project, name=what, groupby=GROUPS)
        blocks += [wr.H1(title), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(entity=entity, project=project, title=f"{project}: networks compared", blocks=blocks, width="fluid")


def _test_panels(name: str, protocols: Sequence[str]) -> list[Any]:
    """For a test set: bars and quality against cost for every protocol, and the table of pictures."""
    _, wr = _modules()
    panels: list[Any] = []
    cost = wr.SummaryMetric("cost/gmacs")
    for protocol in protocols:
        first, higher = wr.SummaryMetric(f"test/{name}/{PROTOCOLS[protocol].metrics[0]}"), PROTOCOLS[protocol].higher_is_better
        # the best value so far as cost grows: the Pareto front
        front = {"running_ymax": True} if higher else {"running_ymin": True}
        panels += [
            wr.BarPlot(title=f"{name}, {metric}", metrics=[f"test/{name}/{metric}"]) for metric in metric_names([protocol])
        ]
        panels += [wr.ScatterPlot(title=f"{name}: quality against cost", x=cost, y=first, log_x=True, **front)]
    return [*panels, wr.WeavePanelSummaryTable(table_name=f"test/{name}/images")]


def _leaderboard_panels() -> list[Any]:
    """What benchmarks leave of their leaderboards."""
    _, wr = _modules()
    shown = {"leaderboard": PAGE, "quality against cost": CHART}
    pages = [wr.MediaBrowser(title=title, media_keys=[key], num_columns=1) for title, key in shown.items()]
    return [*pages, wr.WeavePanelSummaryTable(table_name=LEADERBOARD)]


def _modules() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ModuleNotFoundError:
        raise DerainzooError("W&B's pages as code need wandb-workspaces: pip install 'derainzoo[reports]'") from None
    return ws, wr
