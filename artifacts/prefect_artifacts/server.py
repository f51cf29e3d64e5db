"""Artifacts on Prefect's server, which keeps them in its database: each content once, and pictures of the newest runs alone.

    a body that the server has already, as the newest of its key     is not written again: one page links to it
    a body that is new                                               is written; of older ones of its key, pictures become text

The report has every picture, so nothing is lost. Prefect is imported when something is published.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from artifacts.prefect_artifacts.body import Body, MarkdownBody
from artifacts.rows import markdown_text

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = ["KEEP_PICTURES", "publish_bodies", "without_pictures"]

KEEP_PICTURES = 5  # newest artifacts of a key
PICTURE = re.compile(r"!\[((?:[^\]\\]|\\.)*)\]\(data:[^)]*\)")
OLD_AT_ONCE = 10  # artifacts that are read together: each may be large
NOTE = "Pictures of older runs are not kept here; they are in the run's report. Each one's description stands in its place.\n\n"


def publish_bodies(bodies: Sequence[Body], scope: str, keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """Create what the server does not have yet, linked to the flow or task run that calls this → keys of all bodies. What is as
    before is listed in one page, `excel-unchanged-<scope>`. Of each key, the newest `keep_pictures` keep their pictures."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        newest = _newest(client, [body.key for body in bodies])
        same = [body for body in bodies if body.key in newest and _is_same(body, newest[body.key])]
        for body in bodies:
            if body not in same:
                _create(client, body)
                if "](data:" in body.data:
                    _drop_old_pictures(client, body.key, keep_pictures)
        if same:
            _create(client, _unchanged(f"excel-unchanged-{scope}", [(body, newest[body.key]) for body in same]))
    return [body.key for body in bodies]


def without_pictures(markdown: str) -> str:
    """The page with each picture's description in its place, and a note."""
    return NOTE + PICTURE.sub(r"*\1*", markdown)


def _newest(client: "SyncPrefectClient", keys: Sequence[str]) -> dict[str, Any]:
    """The newest artifact of each key that has one."""
    from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

    by_key = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=list(keys)))
    return {artifact.key: artifact for artifact in client.read_latest_artifacts(artifact_filter=by_key)}


def _is_same(body: Body, artifact: Any) -> bool:
    return bool((artifact.type, artifact.description, artifact.data) == (body.type, body.description, body.data))


def _create(client: "SyncPrefectClient", body: Body) -> None:
    """One client for all: Prefect's own functions open one for each artifact and leave it open."""
    from prefect.client.schemas.actions import ArtifactCreate
    from prefect.runtime import flow_run, task_run

    ids = {"flow_run_id": flow_run.id or None, "task_run_id": task_run.id or None}
    client.create_artifact(ArtifactCreate(key=body.key, type=body.type, description=body.description, data=body.data, **ids))


def _unchanged(key: str, same: list[tuple[Body, Any]]) -> MarkdownBody:
    """A page of links to the artifacts that show what this run would show again."""
    # Relative to the artifact's page: see artifacts/stages.py.
    lines = [
        f"* [{markdown_text(body.key)}](../../artifacts/artifact/{artifact.latest_id}): {markdown_text(body.description)}"
        for body, artifact in same
    ]
    text = "Nothing changed in these since an earlier run, so they are not stored again:\n\n" + "\n".join(lines) + "\n"
    return MarkdownBody(key, "What this run shows as an earlier one did", text)


def _drop_old_pictures(client: "SyncPrefectClient", key: str, keep: int) -> None:
    """Text in place of the pictures of all but the newest `keep` artifacts of a key. Each run does so: where one that is that
    old has no picture, those before it have none."""
    from prefect.client.schemas.actions import ArtifactUpdate
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    by_key = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    offset = keep
    while True:
        old = client.read_artifacts(artifact_filter=by_key, sort=ArtifactSort.CREATED_DESC, limit=OLD_AT_ONCE, offset=offset)
        pages = {artifact.id: artifact.data for artifact in old if isinstance(artifact.data, str)}
        drawn = {id: page for id, page in pages.items() if PICTURE.search(page)}
        for id, page in drawn.items():
            client.update_artifact(id, ArtifactUpdate(data=without_pictures(page)))
        if len(drawn) < OLD_AT_ONCE:
            return
        offset += OLD_AT_ONCE
