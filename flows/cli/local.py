"""`excel up` and `excel down`: a working local Prefect installation by one command, and its end by another."""

import shlex
from typing import Annotated

import typer

from flows.cli.options import Store
from flows.cli.output import give

__all__ = ["down", "up"]


def up(
    store: Store = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="of the server; default 4200", show_default=False)] = None,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="EXCEL_DATABASE_URL",
            help="postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME; default: SQLite in the store. A password is safer "
            "in the variable than on the command line",
            show_default=False,
        ),
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPU tasks at a time; default 1", show_default=False)] = None,
    worker: Annotated[bool, typer.Option(help="also start a worker on this machine")] = True,
) -> None:
    """Start Prefect for a store: server, work pool, GPU limit, deployments and a worker. Again: repair what is missing."""
    from flows.local.deployments import setup_commands
    from flows.local.state import store_folder
    from flows.local.up import bring_up
    from flows.local.up_request import UpRequest

    folder = store_folder(store)
    installation = bring_up(UpRequest(folder, port, database, gpus, worker), lambda text: print(text, flush=True))
    give({"store": str(folder), "ui": installation.ui, "port": installation.port, "logs": str(folder / "prefect" / "logs")})
    print(f"logs: {folder / 'prefect' / 'logs'}")
    print("\nThe same by hand, in the repository's folder:")
    home = folder / "prefect"
    print(f"  export EXCEL_STORE={shlex.quote(str(folder))}")
    print(f"  export PREFECT_HOME={shlex.quote(str(home))}  # profiles.toml in it holds address, key and heartbeats")
    if installation.database != "SQLite":
        print("  export PREFECT_API_DATABASE_CONNECTION_URL=...  # the server alone needs it")
    print(f"  prefect server start --port {installation.port} &")
    for command in setup_commands(gpus):
        print(f"  prefect {shlex.join(command)}")
    print("  prefect worker start --pool excel &")
    print(f"\nPrefect UI: {installation.ui}; sign in once, with the line in {home / 'credential'}")
    print(f"a run:      PREFECT_HOME={shlex.quote(str(home))} prefect deployment run excel/demo --watch")
    print(f"the end:    excel down --store {shlex.quote(str(folder))}")


def down(store: Store = None) -> None:
    """End what `excel up` started: the worker with its runs, then the server. Outputs and Prefect's history stay."""
    from flows.local.down import take_down
    from flows.local.state import store_folder

    folder = store_folder(store)
    take_down(folder, lambda text: print(text, flush=True))
    give({"store": str(folder)})
    print("\nThe same by hand: end `prefect worker start` and then `prefect server start` with Ctrl-C")
