"""What excel needs on a Prefect server: work pool, GPU limit, zombie watch and deployments, made by Prefect's own commands."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import yaml

from excel_core.errors import ServerError
from flows.local.environment import ROOT, environment
from flows.local.state import Installation, call_api, write_state
from flows.local.up_request import UpRequest

__all__ = ["POOL", "prefect_command", "set_up", "setup_commands"]

POOL = "excel"
POOL_TEMPLATE = "flows/local/pool.json"  # below ROOT
ZOMBIE_WATCH = "excel-zombies"
EARLIER_NAMES = ("voc", "coco", "demo")  # of deployments, when a name told the data set alone


def setup_commands(gpus: int | None) -> list[list[str]]:
    """Prefect's own commands that make a bare server one for excel: pool, GPU limit, zombie watch, deployments."""
    return [
        ["work-pool", "create", POOL, "--type", "process", "--base-job-template", POOL_TEMPLATE],
        ["concurrency-limit", "create", "gpu", str(max(1, gpus or 1))],
        ["automation", "create", "--from-file", "flows/local/zombies.yaml"],
        ["--no-prompt", "deploy", "--all"],
    ]


def set_up(request: UpRequest, installation: Installation, notify: Callable[[str], None]) -> Installation:
    """Make pool, GPU limit, zombie watch and deployments where they are missing or come from other files. What the user
    changed about the others stays."""
    digest = _sources_digest()
    changed = digest != installation.deployed
    pool, limit, watch, deploy = setup_commands(request.gpus)
    automations = call_api(installation, "automations/filter", {}) or []
    watches = [automation["id"] for automation in automations if automation["name"] == ZOMBIE_WATCH]
    if watches:  # a second `create` would make a second one
        watch = ["automation", "update", "--id", watches[0], *watch[2:]]
    existing_pool = call_api(installation, f"work_pools/{POOL}")
    if existing_pool:  # with Prefect's own template a run may bring a command of its own
        pool = ["work-pool", "update", POOL, "--base-job-template", POOL_TEMPLATE]
    template = json.loads((ROOT / POOL_TEMPLATE).read_text(encoding="utf-8"))
    has_pool = existing_pool and existing_pool["base_job_template"] == template
    has_limit = request.gpus is None and call_api(installation, "concurrency_limits/tag/gpu")
    has_deployments = not changed and _declared_deployments() <= set(_existing_deployments(installation))
    steps = {
        "pool": (has_pool, pool),
        "gpu limit": (has_limit, limit),
        "zombie watch": (watches and not changed, watch),
        "deployments": (has_deployments, deploy),
    }
    for name, (is_there, command) in steps.items():
        if not is_there:
            _run_prefect(command, environment(request, installation, "setup"))
        notify(f"{name}: {'is there already' if is_there else 'made'}")
    _drop_renamed(installation)
    installation = replace(installation, deployed=digest)
    write_state(request.home, installation)
    return installation


def _declared_deployments() -> set[tuple[str, str]]:
    """(entrypoint, name) of every deployment in prefect.yaml."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return {(deployment["entrypoint"], deployment["name"]) for deployment in deployments}


def _existing_deployments(installation: Installation) -> dict[tuple[str, str], str]:
    """The id of every deployment on the server by (entrypoint, name)."""
    deployments = call_api(installation, "deployments/filter", {}) or []
    return {(deployment["entrypoint"], deployment["name"]): deployment["id"] for deployment in deployments}


def _drop_renamed(installation: Installation) -> None:
    """Delete deployments under the names that an earlier excel gave them; their runs stay."""
    declared = _declared_deployments()
    earlier = {(entrypoint, name) for entrypoint, _ in declared for name in EARLIER_NAMES} - declared
    ids = [id for deployment, id in _existing_deployments(installation).items() if deployment in earlier]
    if ids:
        call_api(installation, "deployments/bulk_delete", {"deployments": {"id": {"any_": ids}}})


def _sources_digest() -> str:
    """Of the files that deployments and their forms are made from."""
    folders = (ROOT / "excel_core" / "config", ROOT / "flows")
    files = [ROOT / "prefect.yaml", *(file for folder in folders for file in sorted(folder.glob("[!.]*.*")))]
    return hashlib.sha256(str(ROOT).encode() + b"".join(file.read_bytes() for file in files)).hexdigest()


def _run_prefect(command: list[str], env: dict[str, str]) -> None:
    ended = subprocess.run(  # noqa: S603  this Python with Prefect's modules; no shell
        prefect_command(*command), env=env, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        encoding="utf-8",
    )  # fmt: skip
    if ended.returncode:
        raise ServerError(f"`prefect {' '.join(command)}` failed: {(ended.stderr or ended.stdout).strip()[-2000:]}")


def prefect_command(*arguments: str) -> list[str]:
    """`prefect ARGUMENTS` under this Python."""
    return [sys.executable, "-m", "prefect", *arguments]
