"""A team of two processes (gloo, on the CPU) against one process with the same batches."""

import multiprocessing
import warnings
from dataclasses import astuple, dataclass

import numpy as np
import open_clip
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image

from excel_core.cams.cam_model import CamModel
from excel_core.config import CalibrationSpec, CamSpec, RefineSpec, SegmenterSpec, TrainSpec
from excel_core.distributed import ProcessGroup, global_sum, process_group, wait_for_all
from excel_core.errors import SettingError
from excel_core.models.calibration import relation_of
from excel_core.models.checkpoints import Architecture
from excel_core.models.clip import FrozenClip
from excel_core.models.segmenter import ChannelDropout
from excel_core.training.loop import train
from excel_core.training.samples import TrainingImage
from tests.conftest import small_clip_model

SPEC = TrainSpec(  # static labels up to 3, dynamic ones up to 6, then the head's own argmax
    segmenter=SegmenterSpec(width=16, layers=1, heads=2),
    iterations=8,
    batch_size=4,
    crop=48,
    warmup=2,
    learning_rate=1e-3,
    dynamic_from=3,
    own_argmax_from=6,
    checkpoint_every=3,
)
REFINE = RefineSpec.model_validate({"par": {"iterations": 2}, "affinity": {"layers": 2}})
SHAPE = Architecture("small", 4, 32, ("a", "b", "c"), SPEC.segmenter)
CASES = {
    "batch mean": (SPEC, "batch"),
    "image mean, padding ignored": (SPEC.model_copy(update={"padding": "ignored"}), "image"),
    "batch mean, padding ignored": (SPEC.model_copy(update={"padding": "ignored"}), "batch"),
    "no warm-up, helped": (SPEC.model_copy(update={"warmup": 0, "workers": 1, "seed": 3}), "batch"),
}


@dataclass(frozen=True)
class Trained:
    """What a training left: weights by name, and a row (iteration, losses..., rate) an iteration."""

    weights: dict[str, torch.Tensor]
    losses: list[tuple[float, ...]]


class _Killed(Exception):
    pass


ODD = {"odd": (SPEC.model_copy(update={"batch_size": 3}), "batch")}


def _trained(case, folder, checkpoint, die_after=0):
    spec, mean = (CASES | ODD)[case]
    text = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    cams = CamSpec.model_validate({"image_size": 48, "calibration": {"depth": 2, "relation_mean": mean}})
    cam_model = CamModel(FrozenClip(small_clip_model(), open_clip.SimpleTokenizer(), "small"), text, 3, cams)
    classes = [(0,), (1, 2), (2,), (), (0, 1, 2)]
    images = [TrainingImage(folder / f"{i}.png", kept) for i, kept in enumerate(classes)]

    def die(done):
        if done == die_after:
            raise _Killed

    segmenter, rows = train(cam_model, images, spec, REFINE, SHAPE, checkpoint, die)
    return Trained(segmenter.state_dict(), [astuple(row) for row in rows])


def _distance(ours, theirs):
    """(largest difference of a weight, of a loss)"""
    weights = [(ours.weights[key] - theirs.weights[key]).abs() for key in ours.weights]
    for key, difference in zip(ours.weights, weights, strict=True):
        if key.endswith("in_proj_bias"):  # softmax does not see the keys' bias: its gradient is rounding, scaled up by Adam
            difference[len(difference) // 3 : 2 * len(difference) // 3] = 0
    losses = np.abs(np.array(ours.losses) - np.array(theirs.losses))
    return max(difference.max().item() for difference in weights), losses.max()


def _in_team(rank, folder):
    """What each process of the team does; everything it finds is saved for the tests to look at."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Grad strides do not match")  # of 1x1 kernels, whose last strides mean nothing
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {"team": astuple(process_group())}
    for case in CASES:
        trained = _trained(case, folder, folder / f"{case} {rank}.pt")
        found[case] = {"weights": trained.weights, "losses": trained.losses}
    found["checkpoints"] = [(folder / f"{case} {rank}.pt").exists() for case in CASES]
    try:
        _trained("batch mean", folder, folder / "team.pt", die_after=5)
    except _Killed:
        wait_for_all()
    trained = _trained("batch mean", folder, folder / "team.pt")
    found["resumed"] = {"weights": trained.weights, "losses": trained.losses}
    trained = _trained("batch mean", folder, folder / "alone.pt")
    found["from one"] = {"weights": trained.weights, "losses": trained.losses}
    found["gradients"] = _gradients(_share(rank))
    found["dropped"] = _dropped(_share(rank))
    try:
        _trained("odd", folder, folder / "odd.pt")
    except SettingError as error:
        found["refused"] = str(error)
    torch.save(found, folder / f"found {rank}.pt")
    dist.destroy_process_group()


def _share(rank):
    return slice(2 * rank, 2 * rank + 2)


def _gradients(share):
    """What comes back to the features of a share of a batch of four, and to a plain sum's terms."""
    features = torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(1))[share].requires_grad_()
    relation = relation_of(features, CalibrationSpec(relation_mean="batch"))
    weights = torch.randn(4, 9, 9, generator=torch.Generator().manual_seed(2))[share]
    global_sum((relation.probability * weights).sum()).square().backward()
    terms = torch.tensor([2.0], requires_grad=True)
    global_sum(terms).square().sum().backward()
    return {"features": features.grad / process_group().world_size, "terms": terms.grad / process_group().world_size}


def _dropped(share):
    torch.manual_seed(5)
    return ChannelDropout(0.4).train()(torch.ones(4, 30, 2, 2)[share])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures to train on, and what the team of two found on them."""
    folder = tmp_path_factory.mktemp("team")
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (30 + 9 * i, 60, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    with pytest.raises(_Killed):
        _trained("batch mean", folder, folder / "alone.pt", die_after=4)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_in_team, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return [torch.load(folder / f"found {rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_a_team_of_two_trains_what_one_process_does(case, found, folder, tmp_path):
    alone = _trained(case, folder, tmp_path / "one.pt")
    first, second = (Trained(**process[case]) for process in found)
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights) and first.losses == second.losses
    weights, losses = _distance(first, alone)
    # A pixel whose two best classes are equal but for the last bit may change sides; it is one of ten thousand.
    assert weights < 1e-5 and losses < 1e-4
    assert np.median(np.abs(np.array(first.losses) - np.array(alone.losses))) < 1e-6


def test_the_first_process_alone_writes_checkpoints(found):
    assert [process["team"] for process in found] == [(0, 2), (1, 2)]
    assert [process["checkpoints"] for process in found] == [[True] * len(CASES), [False] * len(CASES)]


def test_a_team_resumes_to_the_very_bits_and_goes_on_from_one_process(found):
    whole, resumed, moved = (Trained(**found[0][key]) for key in ("batch mean", "resumed", "from one"))
    assert resumed.losses == whole.losses
    assert all(torch.equal(resumed.weights[key], whole.weights[key]) for key in whole.weights)
    weights, losses = _distance(moved, whole)
    assert weights < 1e-5 and losses < 1e-4


def test_gradients_pass_the_sum_over_the_team(found):
    alone = _gradients(slice(4))
    both = torch.cat([process["gradients"]["features"] for process in found])
    assert torch.allclose(both, alone["features"], atol=1e-6) and both.abs().max() > 0.01
    for process in found:  # d (2 + 2)^2 / d one of them
        assert process["gradients"]["terms"].item() == 8


def test_channels_dropped_do_not_depend_on_the_processes(found):
    assert torch.equal(torch.cat([process["dropped"] for process in found]), _dropped(slice(4)))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.4, 1.0])
def test_one_process_drops_the_very_channels_that_torch_does(p):
    x = torch.randn(6, 50, 3, 3, generator=torch.Generator().manual_seed(0))
    results = []
    for dropout in (ChannelDropout(p), torch.nn.Dropout2d(p)):
        torch.manual_seed(1)
        results.append(dropout.train()(x))
        assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(*results)


def test_shares_are_even_or_refused(found):
    assert [ProcessGroup(rank, 3).share(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    message = "train.batch_size=3 must be a multiple of the 2 training processes"
    assert [process["refused"] for process in found] == [message] * 2


def test_a_process_on_its_own_is_a_team_of_one():
    values = torch.ones(2, requires_grad=True)
    assert process_group() == ProcessGroup(0, 1) and process_group().share(7) == slice(0, 7) and global_sum(values) is values
    wait_for_all()
