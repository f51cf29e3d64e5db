"""What each flow writes to Prefect's server, linked to the flow or task run that calls this → the keys."""

from collections.abc import Sequence
from pathlib import Path

from artifacts.prefect_artifacts.body import slug
from artifacts.prefect_artifacts.comparison_bodies import comparison_bodies
from artifacts.prefect_artifacts.run_bodies import ablation_bodies, run_bodies, stage_bodies
from artifacts.prefect_artifacts.server import KEEP_PICTURES, publish_bodies
from artifacts.prefect_artifacts.study_bodies import benchmark_bodies, figure_bodies, paper_body, score_bodies
from artifacts.stage_pages import StagePage
from artifacts.view import Metrics, ReportView
from excel_core.files import read_json

__all__ = [
    "publish", "publish_ablation", "publish_benchmark", "publish_comparison", "publish_figures", "publish_paper",
    "publish_score", "publish_stage",
]  # fmt: skip


def publish(view: ReportView, report: Path, link: str = "", keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """Create the artifacts of a run and link them to the flow or task run that calls this → their keys. `link`: the address of
    the report, where a server has it."""
    return publish_bodies(run_bodies(view, report, link), slug(view.preset), keep_pictures)


def publish_stage(
    stage: str, view: ReportView, pages: Sequence[StagePage], folder: Path, keep_pictures: int = KEEP_PICTURES
) -> list[str]:
    """The same of a stage that ran alone: `view` holds what it made and nothing else; `pages` come before it."""
    return publish_bodies(stage_bodies(stage, view, pages, folder), slug(stage, view.preset), keep_pictures)


def publish_ablation(metrics: Metrics, preset: str, keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """The same for the ablation alone; of metrics.json's content only `ablation` is read."""
    return publish_bodies(ablation_bodies(metrics, preset), slug("ablation", preset), keep_pictures)


def publish_paper(table: str, path: Path) -> list[str]:
    """A table of the paper, read from its JSON file, as a Markdown page → its key."""
    return publish_bodies([paper_body(table, path)], slug(table))


def publish_benchmark(folder: Path, link: str = "", keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """The same for the benchmark; `folder` is the output of the stage `benchmark`."""
    preset = read_json(folder / "benchmark.json")["preset"]
    return publish_bodies(benchmark_bodies(folder, link), slug("benchmark", preset), keep_pictures)


def publish_figures(folder: Path, link: str = "", keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """The same for the paper's figures; `folder` is the output of the stage `figures`, `link` its address."""
    return publish_bodies(figure_bodies(folder, link), "figures", keep_pictures)


def publish_score(folder: Path, change: Path, keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """The same for the flow `score`; `folder` is the output of the stage, `change` the comparison's file."""
    preset = read_json(folder / "score.json")["preset"]
    return publish_bodies(score_bodies(folder, change), slug("score", preset), keep_pictures)


def publish_comparison(folder: Path, link: str = "", keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """The same for two runs side by side; `folder`: what `write_comparison` filled, `link`: its address."""
    preset = read_json(folder / "comparison.json")["preset"]
    return publish_bodies(comparison_bodies(folder, link), slug("compare", preset), keep_pictures)
