"""The API key of a run, found before its work starts: in a Prefect Secret block or in the environment."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.blocks.system import Secret
from pydantic import SecretStr

from excel_core.config import DescribeSpec, RunSpec
from excel_core.errors import SettingError
from excel_core.text.key_transport import require_safe_transport
from tasks.engine.executor import Step, complete_output, part_steps
from tasks.engine.stage import RunEnvironment
from tasks.inputs.api_key import key_in_environment, using_key
from tasks.pipeline import pipeline

__all__ = ["key_of_run"]


@contextmanager
def key_of_run(run: RunSpec, environment: RunEnvironment, last: str) -> Iterator[None]:
    """Around a run up to stage `last`: the key where a class is to be asked for. SettingError where it is missing, or would go
    to another machine over plain HTTP."""
    key = _find_key(run.describe) if _asks(run, environment, last) else None
    require_safe_transport(run.describe, key)
    with using_key(key):
        yield


def _asks(run: RunSpec, environment: RunEnvironment, last: str) -> bool:
    """Whether the run, or a variant of it, asks a language model for a class whose descriptions are not in the store."""
    graph = pipeline(run, environment, last)
    nodes = [node for node in graph.nodes.values() if node.stage.name == "describe"]
    jobs = [graph.job(node, {}) for node in nodes if node.run.describe.provider == "openai"]
    missing = [job for job in jobs if complete_output(Step(job)) is None]
    return any(complete_output(step) is None for job in missing for step in part_steps(job))


def _find_key(spec: DescribeSpec) -> SecretStr | None:
    if spec.secret is None:
        return key_in_environment(spec)
    try:
        secret = Secret.load(spec.secret, _sync=True).get()  # type: ignore[call-arg, union-attr]
    except ValueError:
        raise SettingError(
            f"describe.secret={spec.secret}: Prefect's server has no Secret block of this name; make one in its UI, or "
            f"by Secret(value=...).save({spec.secret!r})"
        ) from None
    if not isinstance(secret, str) or not secret.strip():
        raise SettingError(f"describe.secret={spec.secret}: the Secret block must hold a text, the API key alone")
    return SecretStr(secret.strip())
