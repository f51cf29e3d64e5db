"""A run in Weights & Biases, offline: nothing leaves this machine before `wandb sync`."""

from pathlib import Path

from tasks.trackers.tracked_run import TrackedRun

__all__ = ["to_wandb"]

PROJECT = "excel"


def to_wandb(run: TrackedRun, place: str) -> str:
    """Settings as the config, numbers by iteration, protocols in the summary. → the command that sends it."""
    import wandb

    folder = Path(place).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True)
    with wandb.init(
        project=PROJECT, name=run.name, config=dict(run.settings), dir=folder, mode="offline", settings=settings
    ) as opened:
        for point in run.points:
            opened.log(dict(point.values), step=point.iteration)
        opened.summary.update({f"protocol/{name}": "; ".join(p.values()) for name, p in run.protocols.items()})
        return f"wandb sync {Path(opened.dir).parent}"
