"""The pipeline: every stage in order, what it reads and what it makes.

The story, as the flow `excel` tells it (flows/excel.py):

    photos, image-level labels ── dataset ──┐
    class names ── describe ── knowledge ───┴─ cams ── refine ── train ── dynamic, predict ── evaluate ── report

`reads` names the stages whose outputs a stage always reads; `also_reads` adds what it reads in some runs, or under variants of
the run. Whatever walks through stages uses this table: the flows, a stage alone, `excel plan`, the ablation, the paper tables.
"""

from dataclasses import replace

from excel_core.config import RunSpec
from excel_core.errors import SettingError
from tasks.engine.executor import Step, complete_output
from tasks.engine.graph import Graph, make_graph
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, KeyParts, MaskAccess, RunEnvironment, Sharded, Stage, Whole
from tasks.stages import (
    ablation,
    benchmark,
    cams,
    curve,
    dataset,
    describe,
    dynamic,
    evaluate,
    figures,
    knowledge,
    label_scores,
    paper,
    predict,
    proposals,
    quality,
    refine,
    report,
    score,
    sweep,
    train,
    world,
)

__all__ = ["STAGES", "complete_outputs", "pipeline", "report_job"]


SWEEP = Stage(
    "sweep",
    reads=("world", "dataset", "knowledge"),
    makes="levels.parquet, presence.parquet: raw CAMs against the truth at every threshold",
    work=Sharded(sweep.sweep_parts, sweep.sweep_shard, sweep.join_sweep),
    key=KeyParts(sweep.settings),
    masks=MaskAccess.ALWAYS,
    on_device=True,
)

RUN_STAGES = ("dataset", "describe", "knowledge", "cams", "refine", *train.TRAINED_STAGES, "evaluate", "report")

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "world",
            reads=(),
            makes="JPEGImages/, Annotations/, ImageSets/, SegmentationClass/: the demo's images, labels, splits and masks",
            work=Whole(world.draw_world),
            key=KeyParts(world.settings),
            masks=MaskAccess.ALWAYS,
        ),
        Stage(
            "dataset",
            reads=("world",),
            makes="manifest.parquet: images, sizes, image-level labels, splits; left_out.csv",
            work=Whole(dataset.read_dataset),
            key=KeyParts(dataset.settings, outside=dataset.data_files),
            masks=MaskAccess.LABELS_IN_MASK_FILES,
        ),
        Stage(
            "describe",
            reads=(),
            makes="descriptions.json, prompts.json",
            work=Sharded(describe.class_parts, describe.describe_class, describe.join_classes, run_on="threads"),
            key=KeyParts(describe.settings, outside=describe.outside),
        ),
        Stage(
            "knowledge",
            reads=("describe",),
            makes="knowledge.zarr: text embeddings, attributes, T_c",
            work=Whole(knowledge.make_knowledge),
            key=KeyParts(knowledge.settings, outside=knowledge.outside),
            on_device=True,
        ),
        Stage(
            "cams",
            reads=("world", "dataset", "knowledge"),
            makes="cams.zarr, cams.parquet, presence/: training-free CAMs, attention that refines them, CLIP's presence scores",
            work=Sharded(cams.cam_parts, cams.make_cam_shard, cams.join_cams_and_presence),
            key=KeyParts(cams.settings),
            on_device=True,
        ),
        Stage(
            "proposals",
            reads=("world", "dataset", "knowledge"),
            makes="masks/: masks of each image that vote on its label maps",
            work=Sharded(proposals.proposal_parts, proposals.propose_shard, proposals.join_proposals),
            key=KeyParts(proposals.settings),
            on_device=True,
        ),
        Stage(
            "refine",
            reads=("world", "dataset", "knowledge", "cams"),
            also_reads=refine.mask_proposals,
            makes="SegmentationClassPseudo/, steps/, ImageSets/: training-free pseudo labels",
            work=Sharded(refine.refine_parts, refine.refine_shard, refine.join_label_shards),
            key=KeyParts(refine.settings, inputs=refine.label_lists),
            on_device=True,
        ),
        Stage(
            "score",
            reads=("world", "dataset", "knowledge", "refine"),
            makes="score.json, confusion.parquet: scores of the training-free label maps alone",
            work=Sharded(score.seed_parts, score.score_seed_shard, score.join_seed_scores),
            key=KeyParts(score.settings, inputs=score.input_key),
            masks=MaskAccess.ALWAYS,
        ),
        Stage(
            "train",
            reads=("world", "dataset", "knowledge"),
            also_reads=train.pseudo_labels_for_crops,
            makes="segmenter.safetensors, losses.csv, kept/",
            work=Whole(train.train_segmenter),
            key=KeyParts(train.settings, inputs=train.input_key, outside=train.outside),
            masks=MaskAccess.FULL_SUPERVISION,
            on_device=True,
        ),
        Stage(
            "dynamic",
            reads=("world", "dataset", "knowledge", "train"),
            also_reads=refine.mask_proposals,
            makes="cams.zarr, cams.parquet, SegmentationClassPseudo/, steps/, ImageSets/: CAMs with LVC, and the pseudo labels",
            work=Sharded(dynamic.dynamic_parts, dynamic.make_dynamic_shard, dynamic.join_dynamic_shards),
            key=KeyParts(dynamic.settings, inputs=refine.label_lists),
            on_device=True,
        ),
        Stage(
            "predict",
            reads=("world", "dataset", "knowledge", "train"),
            makes="single_scale/, multi_scale/, multi_scale_crf/: the segmenter's label maps, a folder a split",
            work=Sharded(predict.predict_parts, predict.predict_shard, predict.join_predictions),
            key=KeyParts(predict.settings, inputs=predict.input_key),
            on_device=True,
        ),
        SWEEP,
        replace(SWEEP, name="sweep_lvc", reads=(*SWEEP.reads, "train")),
        Stage(
            "curve",
            reads=("world", "dataset", "knowledge", "train"),
            also_reads=curve.own_training,
            makes="curve.json, curve.png: scores during training",
            work=Sharded(curve.curve_parts, curve.score_kept_segmenters, curve.join_curve),
            key=KeyParts(curve.settings),
            masks=MaskAccess.ALWAYS,
            on_device=True,
        ),
        Stage(
            "ablation",
            reads=("world", "dataset", "knowledge"),
            also_reads=ablation.sweeps,
            makes="ablation.json: the rows of tables 3 to 5 and the methods",
            work=Whole(ablation.score_rows),
            key=KeyParts(ablation.settings),
            masks=MaskAccess.ALWAYS,
        ),
        Stage(
            "evaluate",
            reads=("world", "dataset", "knowledge"),
            also_reads=evaluate.label_maps_to_score,
            makes="metrics.json, confusion.parquet, examples.json, explored.json, truth/",
            work=Sharded(label_scores.score_parts, label_scores.score_shard, evaluate.join_scores),
            key=KeyParts(evaluate.settings, inputs=evaluate.input_key),
            masks=MaskAccess.ALWAYS,
        ),
        Stage(
            "quality",
            reads=("world", "dataset", "knowledge", "cams", "refine"),
            also_reads=quality.learnt_labels,
            makes="quality.csv, doubtful.csv: pseudo labels, the least trusted first, and image-level labels that CLIP doubts",
            work=Sharded(quality.quality_parts, quality.quality_shard, quality.join_quality),
            key=KeyParts(quality.settings, inputs=quality.input_key),
        ),
        Stage(
            "report",
            reads=("world", "dataset", "describe", "knowledge", "cams", "refine", "evaluate"),
            also_reads=report.trained_results_and_quality,
            makes="index.html, losses.png, images/: the report, with images beside it where one file cannot hold them",
            work=Whole(report.make_report),
            key=KeyParts(report.settings, outside=report.outside),
        ),
        Stage(
            "figures",
            reads=("world", "dataset", "knowledge", "train"),
            also_reads=figures.plain_knowledge,
            makes="figure_4.png, figure_5.png, figure_6.png, figures.json",
            work=Whole(figures.draw_figures),
            key=KeyParts(figures.settings, outside=figures.outside),
            on_device=True,
        ),
        Stage(
            "paper",
            reads=("knowledge",),
            also_reads=paper.table_inputs,
            makes="table.json, submissions/: a table of the paper",
            work=Whole(paper.fill_table),
            key=KeyParts(paper.settings),
        ),
        Stage(
            "benchmark",
            reads=("world", "dataset", "knowledge"),
            also_reads=benchmark.method_inputs,
            makes="benchmark.json, benchmark.csv, benchmark.md, overview.png, classes_static.png, classes_lvc.png, "
            "classes_segmentation.png, gallery_seeds.png, gallery_segmentation.png, index.html: methods compared",
            work=Whole(benchmark.compare_methods),
            key=KeyParts(benchmark.settings, outside=benchmark.outside),
        ),
    )
}  # fmt: skip


def pipeline(run: RunSpec, environment: RunEnvironment, last: str = "report") -> Graph:
    """Everything that stage `last` of a run needs, itself included. SettingError for stages that do not go together, and for
    one that needs a segmenter where the run trains none."""
    graph = make_graph(STAGES, run, environment, last)
    if not run.train.enabled and any(node.stage.name == "train" and node.run == run for node in graph.nodes.values()):
        valid = ", ".join(name for name in RUN_STAGES if name not in train.TRAINED_STAGES)
        raise SettingError(
            f"method {run.method} trains no segmenter (train.enabled=false), which {last} needs; stages that it has: {valid}"
        )
    return graph


def complete_outputs(run: RunSpec, environment: RunEnvironment, last: str = "report") -> dict[str, StageOutput]:
    """The run's own outputs that are complete already, by stage name; nothing is run."""
    return pipeline(run, environment, last).follow(lambda job: complete_output(Step(job)))


def report_job(run: RunSpec, environment: RunEnvironment, outputs: dict[str, StageOutput]) -> Job:
    """The job of the report, from finished outputs: what `tasks.stages.report.make_view` reads."""
    stage = STAGES["report"]
    inputs = {name: outputs[name] for name in stage.dependencies(run, environment)}
    return Job(stage, run, environment, inputs)
