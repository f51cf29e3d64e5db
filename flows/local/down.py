"""`excel down`: end the worker, its runs and the server that `excel up` started."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from excel_core.errors import ServerError
from flows.local.access import make_credential, write_profile
from flows.local.environment import installation_settings
from flows.local.processes import end, marked
from flows.local.state import Installation, alone, call_api, read_state

__all__ = ["take_down"]

RUN_ID = "PREFECT__FLOW_RUN_ID"  # which Prefect puts into the environment of a run's process
Notify = Callable[[str], None]


def take_down(store: Path, notify: Notify, seconds: float = 30) -> None:
    """End the worker, then its runs, then the server, and forget them; what is gone already is no error."""
    home = store / "prefect"
    if not (home / "up.json").is_file():
        notify(f"nothing of `excel up` runs in {store}")
        return
    with alone(home):
        installation = read_state(store)
        if installation is None:
            raise ServerError(f"{home / 'up.json'} cannot be read: end Prefect's server and worker by hand, then delete it")
        server, worker = installation.server, installation.worker
        flow_runs = _running_flow_runs(installation)
        end([worker] if worker else [], seconds)
        flow_runs |= _running_flow_runs(installation)  # the worker may have started one meanwhile
        end(marked(f"{installation.mark}/worker"), seconds)  # flow runs, even where their worker died before them
        for flow_run in sorted(flow_runs) if server else ():  # who else may listen there is not to be asked
            with suppress(ServerError):  # its key was exchanged
                _report_ended(installation, flow_run, notify)
        notify(f"worker: ended (pid {worker.pid})" if worker else "worker: none")
        end([server] if server else [], seconds)
        end(marked(f"{installation.mark}/server"), seconds)
        notify(f"server: ended (pid {server.pid})" if server else "server: was gone already")
        (home / "up.json").unlink()
        settings = installation_settings(replace(installation, credential=make_credential(home)))
        del settings["PREFECT_API_URL"]  # whoever takes the port next is not to be asked, with our key
        write_profile(home, settings)


def _running_flow_runs(installation: Installation) -> set[str]:
    """Ids of the flow runs that the worker's processes are running."""
    return {env[RUN_ID] for env in marked(f"{installation.mark}/worker").values() if RUN_ID in env}


def _report_ended(installation: Installation, flow_run: str, notify: Notify) -> None:
    """Tell the server that a run was ended: without its worker nobody else does, and it would stay Running for ever."""
    answer = call_api(installation, f"flow_runs/{flow_run}")
    if not answer or answer["state_type"] in ("COMPLETED", "FAILED", "CANCELLED"):
        return
    if answer["state_type"] != "CRASHED":  # it may have said so itself as it ended
        state = {"type": "CRASHED", "name": "Crashed", "message": "ended by `excel down`; run it again to go on"}
        call_api(installation, f"flow_runs/{flow_run}/set_state", {"state": state, "force": True})
    notify(f"run {answer['name']}: ended; finished stages are kept, run it again to go on")
