"""Training steps on a GPU as CUDA graphs: launching a step's thousands of small kernels one by one
takes the CPU longer than the GPU computes.

A step is recorded once for each phase and shape of batch. It is replayed with other numbers in the same memory: planes, slots,
learning rate, and the seed that dropout begins at. A replay computes what the step on its own does, so a training may go on
from a checkpoint either way.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.config import RefineSpec, TrainSpec
from excel_core.files import first_sentence
from excel_core.models.segmenter import Segmenter
from excel_core.training.batches import Batch
from excel_core.training.optimiser import learning_rate, set_learning_rate
from excel_core.training.precision import float32_products
from excel_core.training.step import Phase, run_step, training_step

__all__ = ["CapturedSteps"]

WARM_UPS = 2  # steps before a recording, in which torch and cuBLAS set up what may not happen within it
EXACT_SLOTS = 4  # numbers of class slots up to here have a graph each; larger ones go up to a multiple of it


@dataclass(frozen=True)
class _Recording:
    """A graph, the batch it reads and the losses (6,) it writes."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    losses: Tensor


class CapturedSteps:
    """Steps of one training, by graphs where they can be recorded. Call it in order of iterations."""

    def __init__(
        self,
        cam_model: CamModel,
        segmenter: Segmenter,
        optimiser: torch.optim.Optimizer,
        spec: TrainSpec,
        refine: RefineSpec,
    ) -> None:
        self.cam_model, self.segmenter, self.optimiser = cam_model, segmenter, optimiser
        self.spec, self.refine = spec, refine
        self.device = cam_model.clip.device
        self.stream = _stream(self.device)
        self.memory = torch.cuda.graph_pool_handle()  # of all graphs together: one runs at a time
        self.phase: Phase | None = None
        self.recordings: dict[tuple[torch.Size, torch.Size], _Recording] = {}
        self.failed = False

    def __call__(self, batch: Batch, iteration: int) -> Tensor:
        """One optimiser step on a batch in page-locked memory → losses (6,) of `StepResult`, on the device."""
        recording = None if self.failed else self._recording_or_none(batch, Phase.at(iteration, self.spec))
        if recording is None:
            step = training_step(self.cam_model, self.segmenter, self.optimiser, batch, iteration, self.spec, self.refine)
            return step.losses
        _fill(recording.batch, batch)
        set_learning_rate(self.optimiser, learning_rate(iteration, self.spec))
        recording.graph.replay()
        return recording.losses.clone()  # the next replay writes there again

    def _recording_or_none(self, batch: Batch, phase: Phase) -> _Recording | None:
        """The recording that fits; None where it cannot be made: that is said once, and none is tried again."""
        random_state = torch.cuda.get_rng_state(self.device)
        try:
            with torch.cuda.stream(torch.cuda.current_stream(self.device)):  # a recording that fails leaves another one
                return self._recording(batch, phase)
        except RuntimeError as error:
            self.failed = True
            self._forget()
            # The recording may have left the generator waiting for its end.
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            torch.cuda.default_generators[index].graphsafe_set_state(torch.Generator(self.device).graphsafe_get_state())
            reason = first_sentence(_first(error))
            print(f"train: no CUDA graph, steps are launched one by one ({reason})", file=sys.stderr, flush=True)
            return None
        finally:
            torch.cuda.set_rng_state(random_state, self.device)

    def _recording(self, batch: Batch, phase: Phase) -> _Recording:
        """The recording that fits, made where there is none yet."""
        if phase != self.phase:
            self._forget()  # a phase does not come back
            torch.cuda.empty_cache()  # else the next phase's memory is taken beside this one's
            self.phase = phase
        shape = batch.planes.shape, torch.Size((len(batch.slots), _rounded(batch.slots.shape[1])))
        if shape not in self.recordings:
            self.recordings[shape] = self._record(batch, shape, phase)
        return self.recordings[shape]

    def _forget(self) -> None:
        """Let go of all recordings and their memory."""
        self.optimiser.zero_grad(set_to_none=True)  # gradients lie in it
        self.recordings.clear()
        self.memory = torch.cuda.graph_pool_handle()

    def _record(self, batch: Batch, shape: tuple[torch.Size, torch.Size], phase: Phase) -> _Recording:
        """Record a step of this shape and phase. Weights and optimiser are left as they were."""
        planes, slots = shape
        static = Batch(
            torch.empty(planes, dtype=torch.uint8, device=self.device),
            torch.empty(slots, dtype=torch.int64, device=self.device),
        )
        _fill(static, batch)

        def step() -> Tensor:
            return run_step(self.cam_model, self.segmenter, self.optimiser, static, phase, self.spec, self.refine).losses

        with float32_products(self.spec, self.device):
            self._warm_up(step)
            graph = torch.cuda.CUDAGraph()
            # thread_local: the loader's thread may page-lock memory meanwhile.
            with torch.cuda.graph(graph, pool=self.memory, stream=self.stream, capture_error_mode="thread_local"):
                losses = step()
        return _Recording(graph, static, losses)

    def _warm_up(self, step: Callable[[], Tensor]) -> None:
        """Take some steps on the stream of the recording, and undo them."""
        before = {tensor: tensor.detach().to("cpu", copy=True) for tensor in self._learnt()}
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            try:
                for _ in range(WARM_UPS):
                    step()
            finally:
                with torch.no_grad():
                    for tensor in self._learnt():
                        # What was not there before is state that the optimiser begins at zero.
                        tensor.copy_(before[tensor]) if tensor in before else tensor.zero_()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def _learnt(self) -> list[Tensor]:
        """What a step changes: weights, and the optimiser's state as far as there is one yet."""
        states = self.optimiser.state.values()
        return [*self.segmenter.parameters(), *(tensor for state in states for tensor in state.values())]


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all recordings of a process: cuBLAS keeps 65 MiB of memory for each stream, for good."""
    return torch.cuda.Stream(device)


def _first(error: BaseException) -> Exception:
    """The error that led to this one: ending a recording that failed fails, too."""
    while error.__context__ is not None:
        error = error.__context__
    return error if isinstance(error, Exception) else RuntimeError(str(error))


def _rounded(slots: int) -> int:
    return slots if slots <= EXACT_SLOTS else -(-slots // EXACT_SLOTS) * EXACT_SLOTS


def _fill(static: Batch, batch: Batch) -> None:
    """Copy a batch into a recording's own memory; slots beyond its own stay empty."""
    static.planes.copy_(batch.planes, non_blocking=True)
    count = batch.slots.shape[1]
    static.slots[:, :count].copy_(batch.slots, non_blocking=True)
    static.slots[:, count:] = -1
