"""What all test rings share: their marks and order, the Prefect server, small seeded models, and where extra photos may be.

A ring is a folder of tests and a mark of the same name: core, parity, tasks, flows, browser, faults.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.prefect_server import connected, make_folder, shared_server, stop_shared_server

# The same number of threads here and in every process that a test starts: sums over threads end in other last bits. One, since
# several tests run at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import flows  # noqa: F401  sets OpenMP's wait policy, so before torch

import torch  # isort: skip

# Before anything imports Prefect: a patient, silent, local server.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

ROOT = Path(__file__).parent.parent
THREADS = {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
# Real photos and published files that are not the project's to give. No test needs them; extras that look at them are skipped
# where they are not beside the repository.
SHARED = ROOT.parent / "shared"
VOC = SHARED / "data" / "VOC2012"
COCO = SHARED / "data" / "coco_tiny"
PUBLISHED = SHARED / "data" / "published"
GOLDENS = SHARED / "goldens" / "reference"


def _extra(path: Path, name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"an extra on {name}, which are not beside the repository")


needs_photos = _extra(VOC, "real VOC photos")
needs_coco = _extra(COCO, "real COCO photos")
needs_published = _extra(PUBLISHED, "the authors' own files")
needs_goldens = _extra(GOLDENS.with_name("reference.npz"), "the published program's weights and arrays")

settings.register_profile("no times", deadline=None)  # a slow machine is no failure
settings.load_profile("no times")

# Settings that make the demo small enough for a test.
SMALL_DEMO = [
    "dataset.train_scenes=12",
    "dataset.val_scenes=4",
    "train.iterations=4",
    "train.batch_size=2",
    "train.dynamic_from=2",
    "train.own_argmax_from=3",
    "train.segmenter.width=16",
    "predict.scales=[0.7, 1.0]",
    "shards.images=4",
    "refine.par.iterations=4",
    "report.gallery_images=2",
]


# What takes long, the longest first: files, and rings whose tests share a process. They start first, so that no process waits
# for another's last tests.
LONG = (
    "flows/test_kills.py", "tasks", "faults/test_every_change.py", "faults/test_server_attacks.py",
    "faults/test_killed_commands.py", "faults/test_power_cuts.py", "flows/test_dask.py",
    "flows/test_deployments.py", "flows/test_edits.py",
    "flows/test_cli.py", "flows/test_interrupt.py", "flows/test_flow.py", "flows/test_segment.py", "flows/test_together.py",
    "browser",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--soak`: tests/faults run in full, for minutes each, instead of a seeded sample."""
    parser.addoption("--soak", action="store_true", help="run tests/faults in full and write docs/faults/")


def pytest_configure(config: pytest.Config) -> None:
    """A folder in which the processes of this run find its Prefect server."""
    if not hasattr(config, "workerinput"):
        make_folder()


def pytest_unconfigure(config: pytest.Config) -> None:
    """After every process of the run: its server ends."""
    if not hasattr(config, "workerinput"):
        stop_shared_server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with its ring, and puts what takes long first."""

    def place(item: pytest.Item) -> int:
        group = _group(item.path.relative_to(ROOT / "tests"))
        return LONG.index(group) if group in LONG else len(LONG)

    for item in items:
        item.add_marker(item.path.relative_to(ROOT / "tests").parts[0])
    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a group share a process under `-n`, and groups start in the order of collection. Groups are named here: marks
    for xdist's own groups do not reach its scheduler under pytest 9."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(Path(nodeid.partition("::")[0]).relative_to("tests"))

    config.option.loadscopereorder = False
    return ByFile(config, log)


def _group(file: Path) -> str:
    """A file below tests/, or a whole ring: `tasks`, whose tests look at one small run, and `browser`."""
    return file.parts[0] if file.parts[0] in ("tasks", "browser") else file.as_posix()


@pytest.fixture(scope="session")
def prefect_server():
    """The run's Prefect server, which every flow of this process uses."""
    server = shared_server()
    with connected(server):
        yield server


@pytest.fixture(autouse=True)
def _number_of_threads():
    """Dask's nannies set these variables in the process that starts them, for good."""
    yield
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.pop(name, None)
    os.environ.update(THREADS)


def small_clip_model(seed: int = 0, quick_gelu: bool = True) -> Any:
    """A seeded open_clip model: 4 blocks, width 32, 2 heads, patch 8, joint width 16."""
    from open_clip.model import CLIP

    cam_model = {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    torch.manual_seed(seed)
    return CLIP(16, cam_model, text, quick_gelu=quick_gelu)


@pytest.fixture(scope="session")
def small_clip() -> Any:
    """`small_clip_model` as a FrozenClip."""
    import open_clip

    from excel_core.models.clip import FrozenClip

    return FrozenClip(small_clip_model(), open_clip.SimpleTokenizer(), "small")


@pytest.fixture
def image_batch() -> torch.Tensor:
    """(2, 3, 48, 48) seeded normal noise: 6 x 6 patches, another grid than the model's 4 x 4."""
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
