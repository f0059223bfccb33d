"""200 small nets (10-16-1, 193 parameters, 80 samples): 200 Adam steps, then on to a gradient norm of 1e-8."""

from functools import cache

import pytest

from . import work

ADAM = {"losslab": work.adam, "a Python loop over nets": work.adam_loop, "vmap(grad(functional_call))": work.adam_vmap}


@cache
def one_by_one():
    return work.adam_loop(5)


@pytest.mark.parametrize("who", ADAM)
def test_adam(who, timed, turn):
    if turn > 2 and who == "a Python loop over nets":
        pytest.skip("three turns of the slowest are enough")
    exact = one_by_one()
    ends = timed(ADAM[who], "adam", who, lambda ends: f"{float((ends[:5] - exact).abs().max()):.0e} in the parameters")
    assert (ends[:5] - exact).abs().max() < 1e-8


@pytest.mark.parametrize("who", ["losslab, all 200", "SciPy trust-exact, two"])
def test_to_critical_points(who, timed, turn):
    landscape = work.small_problem()[0]
    work.trained()
    function = work.to_critical if who.startswith("losslab") else work.to_critical_scipy

    def error(ends):
        return f"largest gradient norm {float(landscape.gradient(ends).norm(dim=1).max()):.1e}"

    ends = timed(function, "critical", who, error)
    assert landscape.gradient(ends).norm(dim=1).max() <= 1.01e-8
