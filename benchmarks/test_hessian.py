"""The full Hessian of 64-h-10 nets on 500 digits: h = 6 has 460 parameters, h = 27 has 2,035."""

import sys
from functools import cache, partial

import pytest

from . import work
from .memory import in_fresh_process

WHO = {
    "losslab": work.full_hessian,
    "torch.func.hessian": work.hessian_func,
    "torch.autograd.functional.hessian": work.hessian_autograd,
    "the same with vectorize=True": partial(work.hessian_autograd, vectorize=True),
}


@cache
def memory(hidden, who):
    """Peak beyond what was there before, in MB, in a process of its own."""
    if sys.platform != "linux":
        return None
    name = WHO[who].func.__name__ if isinstance(WHO[who], partial) else WHO[who].__name__
    arguments = f"{hidden}, vectorize=True" if isinstance(WHO[who], partial) else f"{hidden}"
    code = f"""
from benchmarks import work
from benchmarks.memory import extra
work.digits_problem((64, {hidden}, 10), 500, 0)
work.{name}({6 if hidden != 6 else 3})  # what the first call leaves behind is not the matrix
print(extra(lambda: work.{name}({arguments})))
"""
    return round(in_fresh_process(code)[0] / 1e6)


@pytest.mark.parametrize("hidden", [6, 27])
@pytest.mark.parametrize("who", WHO)
def test_hessian(who, hidden, timed, turn):
    if hidden == 27 and turn > 2 and who != "losslab":
        pytest.skip("three turns of the slow ones are enough")
    exact = exact_hessian(hidden)
    rounds = 10 if who == "losslab" else 1
    H = timed(lambda: WHO[who](hidden), f"hessian {hidden}", who,
              lambda H: f"{float((H - exact).abs().max() / exact.abs().max()):.0e}", rounds=rounds,
              memory=memory(hidden, who))
    assert (H - exact).abs().max() <= 1e-12 * exact.abs().max()


@cache
def exact_hessian(hidden):
    return work.hessian_func(hidden)
