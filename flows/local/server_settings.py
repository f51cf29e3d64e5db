"""How the Prefect servers that excel starts keep their database small. A setting in the user's environment wins."""

__all__ = ["SERVER_SETTINGS"]

SERVER_SETTINGS = {
    "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "flows.local.stored_events",
    # Flow runs, with their logs and artifacts, go after PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD seconds: 90 days.
    # Prefect does so in a server that goes on running, not in one that a command starts for itself.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
}
