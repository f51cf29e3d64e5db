"""A run that is killed between any two changes of files of any stage's completion goes on to the very bytes of one that was
not; and so does one that the disk refused a change, which says so in one line."""

import errno
import random
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.attempt_server import KILLED, REFUSED
from tests.faults.file_layer import FAIL_FROM, FAIL_ONCE, KINDS, Change
from tests.faults.small_scene import Scene, small_scene
from tests.faults.store_checks import check_attempt, check_end, check_training
from tests.faults.targets import Target, is_completion, kill_targets, out_of_reach, stage_of, table

KILLS, KILL_SAMPLE = 1000, 100
REFUSALS, REFUSAL_SAMPLE = 200, 12
WRITING = ("create", "write", "truncate", "mkdir", "link", "rename", "sync")  # what a full disk refuses
CHANGING = tuple(kind for kind in KINDS if not kind.startswith("sync"))  # what a read-only one does
REFUSED_KINDS = {
    errno.ENOSPC: WRITING,
    errno.EDQUOT: WRITING,
    errno.EROFS: CHANGING,
    errno.EIO: KINDS,
    errno.ENFILE: ("create", "open", "truncate"),
}
FOR_GOOD = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # from that change on


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all tests of this file."""
    with small_scene(tmp_path_factory.mktemp("changes")) as scene:
        yield scene


def _meet(scene: Scene, store: Path, goals: Sequence[Target]) -> list[tuple[Target, Change]]:
    """Meet each of the goals that a run of the store comes to, then run to the end → the goals that were met, and the change
    that it was: where texts are encoded already, work has others than an undisturbed run's."""
    met, finished, done, log = list[tuple[Target, Change]](), dict[str, tuple[int, int]](), 0, list[Change]()
    for target in [*goals, None]:
        if target is not None and out_of_reach(target, store, log):
            continue
        kinds = sum(1 << KINDS.index(kind) for kind in REFUSED_KINDS[target.error]) if target and target.error else 0
        ended, log = scene.attempt(store, target, kinds)
        finished, done = check_attempt(store, scene.whole, finished, log), check_training(log, done)
        hits = [change for change in log if change.word in ("before", "after", "failed")]
        if target is not None and hits:
            assert hits[0].place == target.place or target.error, (target, hits[0])
            met.append((target, hits[0]))
        allowed = (0,) if not hits else (0, REFUSED) if target is not None and target.error else (KILLED,)
        assert ended.status in allowed, f"{target}: {ended.output}"
    check_end(store, scene.whole)
    return met


def _meet_all(scene: Scene, goals: Sequence[Target], folder: Path) -> tuple[list[tuple[Target, Change]], int]:
    """Meet all goals, in as many stores as it takes: of a step's changes after its marker, a store's runs come to one. The
    first store begins empty; the others lack only the stages that are to be met."""
    met, stores = list[tuple[Target, Change]](), 0
    while left := [target for target in goals if target not in {target for target, _ in met}]:
        stores += 1
        store = folder / f"store{stores}"
        if stores > 1:
            shutil.copytree(scene.whole, store)
            for stage in {stage_of(target.place) for target in left} - {""}:
                for name in (stage, f"{stage}-parts", *(("texts",) if stage == "knowledge" else ())):
                    shutil.rmtree(store / name, ignore_errors=True)
        new = _meet(scene, store, left)
        assert new, f"no run comes to {left}"
        met += new
    return met, stores


def _kills(scene: Scene, soak: bool, rng: random.Random) -> list[Target]:
    """In order: between any two changes of every completion, and KILLS with those of the work; or a sample of these."""
    kills = kill_targets(scene.changes)
    completions = [target for target in kills if is_completion(target)]
    others = [target for target in kills if not is_completion(target)]
    chosen = [*completions, *rng.sample(others, max(len(others) // 20, KILLS - len(completions)))]
    return sorted(chosen if soak else rng.sample(chosen, KILL_SAMPLE), key=kills.index)


def test_killed_at_any_change_it_goes_on_to_the_same_bytes(scene, soak, figures, tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    started = time.monotonic()
    met, stores = _meet_all(scene, _kills(scene, soak, random.Random(seed)), tmp_path)
    figures(
        "kills",
        seed=seed,
        kills=len(met),
        seconds=round(time.monotonic() - started),
        stores=stores,
        changes_of_a_run=len(scene.changes),
        changes_of_completions=table((target.place, target.kind) for target in scene.changes if is_completion(target)),
        kills_by_stage_and_change=table((change.place, change.kind) for _, change in met),
    )


def test_what_the_disk_refuses_is_one_line_and_the_next_run_ends_in_the_same_bytes(scene, soak, figures, tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng, started, goals = random.Random(seed), time.monotonic(), list[Target]()
    for error, kinds in REFUSED_KINDS.items():
        changes = [change for change in scene.changes if change.kind in kinds]
        chosen = rng.sample(changes, (REFUSALS if soak else REFUSAL_SAMPLE) // len(REFUSED_KINDS))
        goals += [change.met(FAIL_FROM if error in FOR_GOOD else FAIL_ONCE, error) for change in chosen]
    goals.sort(key=lambda goal: scene.changes.index(goal.met(0)))
    met, stores = _meet_all(scene, goals, tmp_path)
    figures(
        "refusals",
        seed=seed,
        refusals=len(met),
        seconds=round(time.monotonic() - started),
        stores=stores,
        by_error=table((errno.errorcode[target.error], change.kind) for target, change in met),
    )
