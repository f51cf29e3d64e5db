"""The API key of a run, found before its work starts: in a Prefect Secret block or in the environment."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.blocks.system import Secret
from pydantic import SecretStr

from excel_core.config import DescribeSpec, RunSpec
from excel_core.errors import SettingError
from tasks.chain import graph, work_of
from tasks.engine.build import complete_output, part_works
from tasks.engine.stage import RunEnvironment
from tasks.inputs.api_key import key_in_environment, using_key

__all__ = ["key_of_run"]


@contextmanager
def key_of_run(last: str, run: RunSpec, place: RunEnvironment) -> Iterator[None]:
    """Around a run up to stage `last`: the key where a class is to be asked for. SettingError where it is missing."""
    nodes = [node for node in graph(run, place, last).nodes.values() if node.stage.name == "describe"]
    works = [work_of(node, place, {}) for node in nodes if node.run.describe.provider == "openai"]
    asks = any(complete_output(piece) is None for work in works if complete_output(work) is None for piece in part_works(work))
    with using_key(_find_key(run.describe) if asks else None):
        yield


def _find_key(spec: DescribeSpec) -> SecretStr | None:
    if spec.secret is None:
        return key_in_environment(spec)
    try:
        value = Secret.load(spec.secret, _sync=True).get()
    except ValueError:
        raise SettingError(
            f"describe.secret={spec.secret}: Prefect's server has no Secret block of this name; make one in its UI, or "
            f"by Secret(value=...).save({spec.secret!r})"
        ) from None
    if not isinstance(value, str) or not value.strip():
        raise SettingError(f"describe.secret={spec.secret}: the Secret block must hold a text, the API key alone")
    return SecretStr(value.strip())
