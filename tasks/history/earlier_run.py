"""The run that a new score is compared with: an earlier complete one of the same data, whose texts or settings were others.

Of those that differ in their texts alone the newest; where there is none, the newest of all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.errors import SettingError, StoreError
from excel_core.files import read_json
from excel_core.stores import read_manifest
from tasks.engine.output import StageOutput, find_output, read_marker
from tasks.history.changed_settings import spec_differences
from tasks.history.find_run import find_record
from tasks.history.run_record import RunRecord, read_records

__all__ = ["MADE", "EarlierRun", "earlier_run", "named_run", "other_code", "other_settings", "shared_photos"]

MADE = ("dataset", "describe", "knowledge", "cams", "refine")  # stages that make the label maps
GROUPS = ("dataset", "describe", "knowledge", "clip", "dino", "cams", "refine")  # settings that the label maps depend on


@dataclass(frozen=True)
class EarlierRun:
    """A run to compare with: its id, what was asked, its outputs MADE. `passed_over`: newer or better fitting runs
    of the same data that could not be compared, and why."""

    id: str
    run: RunSpec
    outputs: dict[str, StageOutput]
    passed_over: dict[str, str] = field(default_factory=dict)


def named_run(store: Path, name: str) -> RunRecord:
    """The run that a user names to compare with. SettingError where no complete run of that name made its label maps."""
    return find_record(store, name, MADE)


def earlier_run(
    store: Path, own_id: str, run: RunSpec, outputs: Mapping[str, StageOutput], against: str | None = None
) -> EarlierRun | dict[str, str]:
    """The run to compare `outputs` of run `own_id` with; where there is none, those of the same data that could not be
    compared, and why. `against` names one: SettingError where that one cannot be compared."""
    if against is not None:
        return _opened(named_run(store, against), outputs)
    candidates = [record for record in reversed(read_records(store)) if _is_another(record, own_id, run, outputs)]
    passed_over: dict[str, str] = {}
    for record in sorted(candidates, key=lambda record: not _differs_in_texts_alone(record, run)):
        dataset = find_output(store / "dataset" / record.own["dataset"])
        if dataset is not None and not shared_photos({"dataset": dataset}, outputs):
            continue  # of other data
        try:
            candidate = _opened(record, outputs)
        except (SettingError, StoreError) as error:
            passed_over[record.id] = str(error)
            continue
        is_same = all(candidate.outputs[stage].content == outputs[stage].content for stage in MADE)
        if not is_same:
            return EarlierRun(candidate.id, candidate.run, candidate.outputs, passed_over)
    return passed_over


def _is_another(record: RunRecord, own_id: str, run: RunSpec, outputs: Mapping[str, StageOutput]) -> bool:
    """A complete run that made label maps of such data, from other texts, settings or images."""
    if record.id == own_id or record.state != "complete" or not set(MADE) <= set(record.own):
        return False
    if record.spec["dataset"]["layout"] != run.dataset.layout:
        return False
    return any(record.own[stage] != outputs[stage].key for stage in MADE)


def _differs_in_texts_alone(record: RunRecord, run: RunSpec) -> bool:
    try:
        return not other_settings(record.run, run)
    except StoreError:
        return False


def _opened(record: RunRecord, outputs: Mapping[str, StageOutput]) -> EarlierRun:
    """The run with its outputs. SettingError for one of other classes, or whose outputs are gone; StoreError for one of another
    version of excel."""
    own_outputs = {}
    for stage in MADE:
        output = find_output(record.store / stage / record.own[stage])
        if output is None:
            raise SettingError(f"run {record.id}: its {stage} was removed or damaged; run it again to compare with it")
        own_outputs[stage] = output
    names = [_class_names(run_outputs["describe"]) for run_outputs in (own_outputs, outputs)]
    if names[0] != names[1]:
        raise SettingError(f"run {record.id} has other classes, or others in their order: its scores cannot be compared")
    return EarlierRun(record.id, record.run, own_outputs)


def _class_names(describe: StageOutput) -> list[str]:
    return [entry["name"] for entry in read_json(describe.folder / "prompts.json")["classes"]]


def shared_photos(a: Mapping[str, StageOutput], b: Mapping[str, StageOutput]) -> set[tuple[str, str]]:
    """(split, id) of the photos that two runs read, byte for byte the same in both."""
    digests_a, digests_b = (_photos(outputs["dataset"]) for outputs in (a, b))
    return {photo for photo, digest in digests_a.items() if digest and digests_b.get(photo) == digest}


def _photos(dataset: StageOutput) -> dict[tuple[str, str], str]:
    """The digest of each photo that can be used."""
    manifest = read_manifest(dataset.folder / "manifest.parquet")
    usable = manifest[manifest["error"] == ""]
    return dict(zip(zip(usable["split"], usable["id"], strict=True), usable["digest"], strict=True))


def other_settings(before: RunSpec, after: RunSpec) -> list[dict[str, Any]]:
    """Settings that the label maps depend on, beside the texts: {field, a, b} of those that differ."""
    a, b = ({name: values for name, values in run.model_dump(mode="json").items() if name in GROUPS} for run in (before, after))
    return [entry for entry in spec_differences(a, b) if not _is_of_texts(entry["field"])]


def _is_of_texts(field: str) -> bool:
    return field == "dataset.prompts" or field.startswith("describe.")


def other_code(before: Mapping[str, StageOutput], after: Mapping[str, StageOutput]) -> list[str]:
    """Stages whose code was edited between the two runs."""
    return [stage for stage in MADE if _code(before[stage]) != _code(after[stage])]


def _code(output: StageOutput) -> Any:
    return read_marker(output.folder).origin.key_parts["code"]
