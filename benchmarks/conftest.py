"""Order and notes of the benchmarks.

Machines are busy: every piece of work is done in several turns, and in each turn by everybody in a row, so that a
disturbance meets all of them. The table takes the fastest turn of each.
"""

import os

import pytest
import torch

TURNS, THREADS = int(os.environ.get("TURNS", 5)), int(os.environ.get("THREADS", 1))
torch.set_num_threads(THREADS)


def pytest_generate_tests(metafunc):
    if "turn" in metafunc.fixturenames:
        metafunc.parametrize("turn", range(TURNS))


def pytest_collection_modifyitems(items):
    works = list(dict.fromkeys(item.function for item in items))
    items.sort(key=lambda item: (works.index(item.function), item.callspec.params["turn"]))


@pytest.fixture
def timed(benchmark, turn):
    """timed(function, work, who, error): time the function, note how far its result is from the reference."""

    def run(function, work, who, error, rounds=1, **notes):
        result = benchmark.pedantic(function, rounds=rounds, warmup_rounds=int(rounds > 1))
        benchmark.extra_info.update(work=work, who=who, error=error(result), threads=THREADS, **notes)
        return result

    return run
