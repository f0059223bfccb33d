"""Memory stays bounded: stated sizes of work under stated peaks, and `memory=` of a landscape is respected.

Each piece of work runs in a process of its own; the peak includes Python, torch and the data.
"""

import sys

import pytest

from benchmarks.memory import in_fresh_process

MB = 10**6
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory that Linux writes down")

PROBLEM = """
import torch
from benchmarks.memory import extra, high_water
from losslab import MLP, Landscape, backend, data, slices
digits = data.digits()
landscape = Landscape(MLP([64, {hidden}, 10]), digits.x, digits.y, "cross_entropy")
theta = landscape.network.init(seed=0)
"""


def test_a_surface_of_5000_parameters_on_all_digits_stays_under_600_MB():
    parameters, peak = in_fresh_process(PROBLEM.format(hidden=67) + """
u, v = backend.normal(2, landscape.M, seed=1)
t = torch.linspace(-1, 1, 51)
assert slices.plane(landscape, theta, u, v, t, t).isfinite().all()
print(landscape.M, high_water())
""")
    assert parameters > 5000
    assert peak < 600 * MB, f"{peak / MB:.0f} MB"


def test_a_hessian_of_2000_parameters_on_all_digits_stays_under_800_MB():
    parameters, peak = in_fresh_process(PROBLEM.format(hidden=27) + """
assert landscape.hessian(theta).isfinite().all()
print(landscape.M, high_water())
""")
    assert parameters > 2000
    assert peak < 800 * MB, f"{peak / MB:.0f} MB"


# Freed memory that the C library keeps for later arrays, and small things that no estimate counts.
SLACK = 64 * MB

BOUNDED = """
from benchmarks.memory import extra
import torch
from losslab import MLP, Landscape, backend
net = MLP([10, 40, 40, 1])
x, y = backend.normal(40_000, 10, seed=0), backend.normal(40_000, 1, seed=1)
module = torch.nn.Sequential(torch.nn.Linear(10, 40), torch.nn.Tanh(), torch.nn.Linear(40, 40), torch.nn.Tanh(),
                             torch.nn.Linear(40, 1)).eval()
bounded = {landscape}
theta, v = net.init(seed=0, batch=10), backend.normal(10, net.M, seed=2)
for work in (lambda: bounded.value(theta), lambda: bounded.gradient(theta), lambda: bounded.hvp(theta[0], v),
             lambda: bounded.hvp(theta[:2], v[:2]), lambda: bounded.value_in_span(theta[0], v[:2], v[:, :2]),
             lambda: bounded.outputs(theta), lambda: {hessian}.hessian(theta[0])):
    print(extra(work))
"""


@pytest.mark.parametrize("landscape, hessian", [  # the Hessian on fewer samples: it takes longer
    ("Landscape(net, x, y, memory=20e6)", "Landscape(net, x[:4000], y[:4000], memory=20e6)"),
    ("Landscape.of_module(module, (x, y), memory=20e6, route='autodiff')",
     "Landscape.of_module(module, (x[:400], y[:400]), memory=20e6, route='autodiff')"),
], ids=["layerwise", "autodiff"])
def test_the_stated_memory_is_respected(landscape, hessian):
    M, n, batch = 2121, 40_000, 10
    # Numbers in the result; a Hessian made of several blocks of samples has the sum, a block, and its transpose.
    results = [0, batch * M, batch * M, 2 * M, 0, batch * n, 3 * M * M]
    activations = 8 * n * 80 * batch  # of one forward pass of the batch, all at once: 256 MB
    assert activations > 2 * (20 * MB + SLACK)
    measured = in_fresh_process(BOUNDED.format(landscape=landscape, hessian=hessian))
    for extra, result in zip(measured, results, strict=True):
        assert extra <= 20 * MB + 8 * result + SLACK, f"{extra / MB:.0f} MB"
