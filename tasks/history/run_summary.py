"""What a list of runs says of each: plain data, as `excel runs --json` prints it."""

from datetime import datetime
from typing import Any

from artifacts.headline import headline_key
from artifacts.stages import largest_known
from tasks.history.changed_settings import changed_settings
from tasks.history.named_folder import folder_of
from tasks.history.run_record import RunRecord

__all__ = ["run_summary"]


def run_summary(record: RunRecord) -> dict[str, Any]:
    """Plain data. `headline`: {key, miou} of the result that the report shows first, None where nothing was scored; `results`:
    the mIoU of all. `changed`: settings that differ from the preset. `build_seconds` and peak memory are of building its
    stages, in this run or an earlier one; `seconds` is how long the run took."""
    key = headline_key({"results": record.headline})
    folder = folder_of(record)
    return {
        "id": record.id,
        "name": record.flow_run_name,
        "pinned": record.pinned,
        "flow": record.flow,
        "title": _flow_and_data(record),
        "preset": record.spec.get("preset"),
        "method": record.spec.get("method"),
        "data": record.data,
        "device": record.device,
        "state": record.ended_as,
        "message": record.message,
        "started": record.started,
        "finished": record.finished or None,
        "seconds": _seconds(record),
        "outputs": len(record.outputs),
        "built": len(record.outputs) - len(record.cached),
        "build_seconds": sum(cost.seconds for cost in record.costs) if record.costs else None,
        "peak_host_bytes": largest_known(cost.peak_host_bytes for cost in record.costs),
        "peak_gpu_bytes": largest_known(cost.peak_gpu_bytes for cost in record.costs),
        "headline": None if key is None else {"key": key, "miou": record.headline[key]},
        "results": record.headline,
        "changed": changed_settings(record),
        "stages": {stage: str(record.store / stage / key) for stage, key in record.own.items()},
        "folder": str(folder) if folder is not None and folder.is_dir() else None,
    }


def _seconds(record: RunRecord) -> float | None:
    if not record.finished:
        return None
    return (datetime.fromisoformat(record.finished) - datetime.fromisoformat(record.started)).total_seconds()


def _flow_and_data(record: RunRecord) -> str:
    """Which flow ran on what, for example `paper voc, table-3` or `excel demo, clip_es:reference`; a run that learnt from true
    masks says so."""
    words = [f"{record.flow} {record.spec.get('preset')}"]
    if record.flow == "paper" and "paper" in record.own:
        words.append(record.spec["paper"]["table"])
    method = record.spec.get("method", "")
    if ":" in method and method != "excel:reference":  # what runs are of unless they say so
        words.append(method)
    if record.spec.get("train", {}).get("supervision") == "masks":
        words.append("fully supervised")
    if record.spec.get("refine", {}).get("votes", {}).get("enabled"):
        words.append("+SAM")
    return ", ".join(words)
