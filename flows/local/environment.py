"""The settings of an installation, and the environment that its processes get. A database's password goes to the server's
environment and nowhere else."""

from pathlib import Path

from flows.local.access import client_settings, server_settings, without_foreign_settings, without_secrets
from flows.local.processes import MARK
from flows.local.state import Installation
from flows.local.up_request import UpRequest

__all__ = ["ROOT", "environment", "installation_settings"]

ROOT = Path(__file__).resolve().parent.parent.parent


def installation_settings(installation: Installation) -> dict[str, str]:
    """Prefect's settings of server and clients, as STORE/prefect/profiles.toml has them for commands given by hand."""
    credential, port = installation.credential, installation.port
    heartbeat = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    return server_settings(credential, port) | client_settings(credential, port) | heartbeat


def environment(request: UpRequest, installation: Installation, role: str) -> dict[str, str]:
    """A user's environment without their Prefect's connection, and with ours; the database for the server alone, the
    language model's key for the worker alone."""
    env = without_foreign_settings() | installation_settings(installation)
    env.pop("EXCEL_DATABASE_URL", None)
    if role != "worker":
        env = without_secrets(env)
    env |= {
        MARK: f"{installation.mark}/{role}",
        "EXCEL_STORE": str(request.store),
        "PREFECT_HOME": str(request.home),
        "DO_NOT_TRACK": "1",
        "PWD": str(ROOT),  # what prefect.yaml's pull step names
    }
    if role == "server" and request.database is not None:
        env["PREFECT_API_DATABASE_CONNECTION_URL"] = request.database
    return env
