"""Stage `proposals`: masks of every image that gets label maps, for `refine.votes` → masks/ID.json, one part per shard.

They come from a folder, or from a promptable segmenter. What is broken in a folder's files is left out here, once.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.datasets.mask_proposals import proposals_file, read_proposals, write_proposals
from excel_core.models.mask_proposer import MaskProposer
from tasks.engine.fingerprint import folders_fingerprint
from tasks.engine.output import StageOutput, StageResult, link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part
from tasks.inputs.images import ImageRecord, cam_images, cam_shards, in_shard

__all__ = ["MASKS", "ProposalsResult", "join_proposals", "proposal_parts", "propose_shard", "settings"]

MASKS = "masks"  # the folder of the output


class ProposalsResult(StageResult):
    """Images, those without a file of masks, masks, and masks that were left out, for example why."""

    images: int
    without: int
    masks: int
    broken: int
    example: str = ""


def proposal_parts(job: Job) -> list[Part]:
    """A part depends on its images, and on their files of masks or on the model."""
    key = {"spec": settings(job.run)}
    return cam_shards(job, lambda shard, images: key | {"source": _source_key(job.run, images)})


def _source_key(run: RunSpec, images: Sequence[ImageRecord]) -> Any:
    """What the masks of these images come from. A named model is known by its name, a folder by its files' sizes and times."""
    spec = run.refine.votes
    if spec.masks is None:
        folder = Path(spec.model)
        return [folder.name, folders_fingerprint(folder, ".")] if folder.is_dir() else spec.model
    files = [proposals_file(Path(spec.masks), image.id) for image in images]
    return [[file.name, *_version(file)] for file in files]


def _version(file: Path) -> list[int]:
    return [file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else []


def propose_shard(job: Job, part: Part, folder: Path) -> ProposalsResult:
    """Read or propose the masks of each image, and write those that are sound."""
    spec, counts = job.run.refine.votes, {"without": 0, "masks": 0, "broken": 0}
    images, example = in_shard(part.images, cam_images(job, part.images.split)), ""
    (folder / MASKS).mkdir()
    for image in track(images):
        target = proposals_file(folder / MASKS, image.id)
        if spec.masks is None:
            counts["masks"] += write_proposals(target, _proposer(spec.model, job.environment.device).propose(image.read()))
            continue
        file = proposals_file(Path(spec.masks), image.id)
        if not file.is_file():
            counts["without"] += 1
            continue
        proposals = read_proposals(file, image.height, image.width)
        counts["masks"] += write_proposals(target, proposals.areas())
        counts["broken"] += proposals.broken
        example = example or (f"{image.id}: {proposals.problem}" if proposals.broken else "")
    return ProposalsResult(images=len(images), example=example, **counts)


_proposer = lru_cache(maxsize=1)(MaskProposer)


def join_proposals(job: Job, parts: dict[str, StageOutput], folder: Path) -> ProposalsResult:
    """All shards' files in one folder."""
    (folder / MASKS).mkdir()
    for part in parts.values():
        link_tree(part.folder / MASKS, folder / MASKS)
    shard_results = [part.result_as(ProposalsResult) for part in parts.values()]
    sums = {name: sum(getattr(result, name) for result in shard_results) for name in ("images", "without", "masks", "broken")}
    return ProposalsResult(**sums, example=next((result.example for result in shard_results if result.example), ""))


def settings(run: RunSpec) -> dict[str, Any]:
    """Nothing beside where masks come from, which is in the parts' keys."""
    return {"from_folder": run.refine.votes.masks is not None}
