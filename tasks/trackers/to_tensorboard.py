"""A run as TensorBoard's event files: FOLDER/RUN."""

from pathlib import Path

from artifacts.rows import markdown_table
from tasks.trackers.tracked_run import TrackedRun

__all__ = ["to_tensorboard"]


def to_tensorboard(run: TrackedRun, place: str) -> str:
    """Scalars by iteration; settings, and the protocol of each score, as text. → the command that shows it."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(Path(place) / run.id)) as writer:
        for point in run.points:
            for name, value in point.values.items():
                writer.add_scalar(name, value, point.iteration)
        settings = [{"setting": name, "value": value} for name, value in run.settings.items()]
        protocols = [{"score": name, **protocol} for name, protocol in run.protocols.items()]
        writer.add_text("settings", markdown_table(settings))
        if protocols:
            writer.add_text("protocols", markdown_table(protocols))
    return f"tensorboard --logdir {place}"
