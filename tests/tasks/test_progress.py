"""Progress where there is no terminal: how often a line is printed, and what it says."""

import pytest

from tasks.engine import progress
from tasks.engine.progress import Counter, listening, track


@pytest.fixture
def clock(monkeypatch):
    """The time that counters see, in seconds; a list of one, to be set."""
    seconds = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def _lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_line_tells_time_rate_and_what_is_left(clock, capsys):
    with Counter("cams", 1464) as counter:
        clock[0] = 0.1
        counter.to(1)
        clock[0] = 60.0
        counter.to(480)
        clock[0] = 183.0
        counter.to(1464)
    assert _lines(capsys) == [
        "cams: 480/1,464, 32 %, 1 min 00 s, 8.0/s, 2 min 03 s to go",
        "cams: 1,464/1,464, 100 %, 3 min 03 s, 8.0/s",
    ]


def test_slow_work_is_told_by_the_seconds_of_a_step_with_its_remark(clock, capsys):
    with Counter("train", 10) as counter:
        clock[0] = 40.0
        counter.remark = "loss 0.4321"
        counter.to(1)
        clock[0] = 80.0
        counter.to(2)
    assert _lines(capsys) == [
        "train: 1/10, 10 %, 40.0 s, loss 0.4321",  # how long a step takes shows from the second on
        "train: 2/10, 20 %, 1 min 20 s, 40.0 s each, 5 min 20 s to go, loss 0.4321",
    ]


def test_shards_that_are_told_as_a_whole_are_not_taken_for_one_image(clock, capsys):
    with Counter("cams", 240) as counter:
        for seconds, done in ((6.0, 24), (12.0, 48)):
            clock[0] = seconds
            counter.to(done)
    assert _lines(capsys) == ["cams: 24/240, 10 %, 6.0 s", "cams: 48/240, 20 %, 12.0 s, 4.0/s, 48.0 s to go"]


def test_a_resumed_training_is_not_taken_for_a_fast_one(clock, capsys):
    with Counter("train", 1000) as counter:
        clock[0] = 1.0
        counter.to(901)
        clock[0] = 10.0
        counter.to(910)
    assert _lines(capsys)[-1] == "train: 901/1,000, 90 %, 1.0 s"
    with Counter("train", 1000) as counter:
        clock[0] = 20.0
        counter.to(901)
        clock[0] = 60.0
        counter.to(910)
    assert _lines(capsys)[-1] == "train: 910/1,000, 91 %, 50.0 s, 4.4 s each, 6 min 40 s to go"


def test_lines_come_at_tenths_and_after_half_a_minute_but_not_in_floods(clock, capsys):
    with Counter("refine", 1000) as counter:
        for done in range(1, 1001):  # within a second
            clock[0] = done / 1000
            counter.to(done)
    assert [line.partition(",")[0] for line in _lines(capsys)] == ["refine: 100/1", "refine: 1"]
    with Counter("refine", 1000) as counter:
        for done in range(1, 101):  # a tenth, within ten minutes
            clock[0] += 6.0
            counter.to(done)
    assert 18 <= len(_lines(capsys)) <= 21


def test_who_listens_hears_every_step(clock, capsys):
    heard = []
    with listening(lambda *step: heard.append(step)), Counter("export", 3) as counter:
        assert list(track("abc")) == ["a", "b", "c"] and counter.done == 3
    assert heard == [("export", 1, 3), ("export", 2, 3), ("export", 3, 3)]
    assert [line.partition(",")[0] for line in _lines(capsys)] == ["export: 1/3", "export: 3/3"]
