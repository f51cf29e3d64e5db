"""After a power cut, whatever the disk has of what was not synced: no output counts as complete with missing bytes, none that a
run had finished is lost, and the run goes on to the very bytes of one that was not cut."""

import random
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from excel_core.sync import SWITCH
from tests.faults.attempt_server import KILLED
from tests.faults.disk_states import VARIANTS, Journal, keep_names, write_state
from tests.faults.file_layer import KILL_AFTER, Change
from tests.faults.small_scene import Scene, small_scene
from tests.faults.store_checks import check_end, lost_outputs, wrong_outputs
from tests.faults.targets import Target, is_completion, out_of_reach, table

CUTS, SAMPLE = 300, 16


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all tests of this file."""
    with small_scene(tmp_path_factory.mktemp("cuts")) as scene:
        yield scene


@dataclass
class Looked:
    """Cuts that were made, the number of states that were looked at, and the outputs that are wrong or lost in one."""

    cuts: list[Target] = field(default_factory=list)
    states: int = 0
    wrong: list[str] = field(default_factory=list)


def _cut(scene: Scene, store: Path, target: Target, keep: Path, syncs: str) -> tuple[Journal | None, list[Change]]:
    """Run the chain in `store` and cut it off after the target → what was written and what was synced, or None where the run
    did not come to it; and its log."""
    keep.mkdir(parents=True)
    start = keep_names(store, keep)
    ended, log = scene.attempt(store, target.met(KILL_AFTER), keep=str(keep), **{SWITCH: syncs})
    assert ended.status in (0, KILLED), ended.output
    return (Journal(start, log) if ended.status == KILLED else None), log


def _follow_cuts(scene: Scene, goals: list[Target], folder: Path, rng: random.Random, syncs: str = "1") -> Looked:
    """Cut a run off, look at the states that the disk may be in, go on from one of them to the next cut, and at last to the
    end."""
    looked, log = Looked(), list[Change]()
    store, keep, state = folder / "store", folder / "keep", folder / "state"
    for target in goals:
        if out_of_reach(target, store, log):
            continue
        journal, log = _cut(scene, store, target, keep, syncs)
        if journal is not None:
            looked.cuts.append(target)
            goes_on = rng.randrange(len(VARIANTS))
            for number, variant in enumerate(VARIANTS):
                write_state(journal, keep, variant, rng, state)
                looked.states += 1
                wrong = [*wrong_outputs(state, scene.whole), *lost_outputs(state, log)]
                looked.wrong += [f"{name} after {target}: {variant}" for name in wrong]
                if number == goes_on:
                    state.rename(folder / "next")
                else:
                    shutil.rmtree(state)
            shutil.rmtree(store)
            (folder / "next").rename(store)
        shutil.rmtree(keep)
    if not looked.wrong:
        ended, log = scene.attempt(store, **{SWITCH: syncs})
        assert ended.status == 0, ended.output
        check_end(store, scene.whole, texts=False)  # they are not synced: their digests show what is missing
    return looked


def _goals(scene: Scene, soak: bool, rng: random.Random) -> list[Target]:
    """In order: changes of completions, and as many of the work before them."""
    number = CUTS if soak else SAMPLE
    completions = [target for target in scene.changes if is_completion(target)]
    others = [target for target in scene.changes if not is_completion(target)]
    chosen = {*rng.sample(completions, min(len(completions), number)), *rng.sample(others, number // 4)}
    return [target for target in scene.changes if target in chosen]


def test_a_power_cut_leaves_no_output_with_missing_bytes_and_loses_none(scene, soak, figures, tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng, started, looks = random.Random(seed), time.monotonic(), list[Looked]()
    goals = _goals(scene, soak, rng)
    while goals:
        looks.append(_follow_cuts(scene, goals, tmp_path / f"store{len(looks)}", rng))
        assert not looks[-1].wrong
        assert looks[-1].cuts, f"no run comes to {goals}"
        goals = [target for target in goals if target not in looks[-1].cuts]
    cuts = [target for look in looks for target in look.cuts]
    figures(
        "power_cuts",
        seed=seed,
        cuts=len(cuts),
        states=sum(look.states for look in looks),
        seconds=round(time.monotonic() - started),
        stores=len(looks),
        cuts_by_stage_and_change=table((target.place, target.kind) for target in cuts),
    )


def test_without_syncs_such_a_cut_is_seen_to_lose_outputs(scene, tmp_path):
    first = next(change for change in scene.changes if change.place.startswith("record dataset/"))
    assert _follow_cuts(scene, [first], tmp_path, random.Random(0), syncs="0").wrong
