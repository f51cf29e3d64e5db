"""Work beside the model: in order where order matters, never too far ahead, and no error is lost."""

import threading

import pytest
import torch

from excel_core.background_pool import BackgroundPool, read_ahead

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


def test_reading_ahead_keeps_the_order_and_a_distance():
    begun = []

    def read(item):
        begun.append(item)
        return item * item

    def items():
        for item in range(40):
            yield item
            furthest.append(item)

    furthest = []
    for position, (item, found) in enumerate(read_ahead(items(), read, ahead=5)):
        assert (item, found) == (position, position * position)
        assert len(furthest) <= position + 6
    assert sorted(begun) == list(range(40))


def test_reading_ahead_raises_at_the_item_that_fails():
    def read(item):
        if item == 3:
            raise ValueError("no photo")
        return item

    seen = []
    with pytest.raises(ValueError, match="no photo"):
        for item, _ in read_ahead(range(100), read, ahead=2):
            seen.append(item)
    assert seen == [0, 1, 2]


def test_all_calls_are_done_at_the_end_of_the_block():
    done = []
    with BackgroundPool(ELSEWHERE) as side:
        for number in range(50):
            side.submit(done.append, number)
            side.drain()
    assert sorted(done) == list(range(50))


def test_on_a_cpu_a_batch_is_finished_before_the_next():
    done = []
    with BackgroundPool(CPU) as side:
        for start in (0, 3, 6):
            for number in range(start, start + 3):
                side.submit(done.append, number)
            side.drain()
            assert sorted(done) == list(range(start + 3))


def test_beside_a_gpu_no_more_than_two_calls_a_thread_wait():
    gate, most = threading.Event(), 2 * torch.get_num_threads()
    handed = []

    def hand_over(side):
        for number in range(most + 3):
            side.submit(gate.wait)
            handed.append(number)

    with BackgroundPool(ELSEWHERE) as side:
        caller = threading.Thread(target=hand_over, args=(side,))
        caller.start()
        caller.join(1.0)
        assert len(handed) == most and caller.is_alive()
        gate.set()
        caller.join()


def test_the_error_of_a_call_ends_the_block():
    with pytest.raises(ZeroDivisionError), BackgroundPool(ELSEWHERE) as side:
        side.submit(lambda: 1 / 0)
