"""The five pieces of work that are timed, each done by losslab and by its peers, on the same numbers in float64."""

import contextlib
import copy
from functools import cache

import numpy as np
import scipy.optimize
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from losslab import MLP, Landscape, backend, data, descend, slices, spectrum

STEPS = 51  # points of the surface along each axis
SMALL = MLP([10, 16, 1])  # the small net of the ensembles
NETS, SAMPLES, ADAM_STEPS, ADAM_STEP = 200, 80, 200, 1e-2


def module(net: MLP, theta) -> nn.Module:
    """The torch module with the parameters theta: what the peers are given."""
    parts = []
    for (W, b), last in zip(net.layers(theta), [False] * (net.depth - 1) + [True], strict=True):
        linear = nn.Linear(W.shape[1], W.shape[0], dtype=torch.float64)
        linear.weight.data.copy_(W)
        linear.bias.data.copy_(b)
        parts += [linear] if last else [linear, nn.Tanh()]
    return nn.Sequential(*parts).eval()


@cache
def digits_problem(widths=(64, 64, 10), n=1797, steps=200):
    """Landscape of a tanh net on digits with cross-entropy, and a point after `steps` Adam steps."""
    digits = data.digits(n)
    landscape = Landscape(MLP(widths), digits.x, digits.y, "cross_entropy")
    theta = landscape.network.init(seed=0)
    return landscape, descend.adam(landscape, theta, steps, 1e-2).theta if steps else theta


# -- 51 x 51 points of a plane


@cache
def plane_problem():
    """A plane, its points as loss-landscapes takes them: origin + i u + (j + 1) v, with i and j from 0 to 50."""
    landscape, theta = digits_problem()
    u, v = backend.normal(2, landscape.M, seed=1) * theta.norm() / landscape.M**0.5 / STEPS
    return landscape, theta, u, v


def surface():
    landscape, theta, u, v = plane_problem()
    return slices.plane(landscape, theta, u, v, torch.arange(STEPS), torch.arange(1, STEPS + 1)).numpy()


def surface_loss_landscapes():
    from loss_landscapes import planar_interpolation
    from loss_landscapes.metrics import Loss

    landscape, theta, u, v = plane_problem()
    corners = [module(landscape.network, end) for end in (theta, theta + STEPS * u, theta + STEPS * v)]
    metric = Loss(nn.functional.cross_entropy, landscape.x, landscape.y)
    return planar_interpolation(*corners, metric, steps=STEPS)


@cache
def surface_directly():
    """Every point on its own, by the torch module."""
    landscape, theta, u, v = plane_problem()
    net = module(landscape.network, theta)
    values = np.empty((STEPS, STEPS))
    with torch.no_grad():
        for i in range(STEPS):
            for j in range(STEPS):
                nn.utils.vector_to_parameters(theta + i * u + (j + 1) * v, net.parameters())
                values[i, j] = nn.functional.cross_entropy(net(landscape.x), landscape.y)
    return values


# -- the ten largest eigenvalues


@cache
def ten_eigenvalues():
    """Falling, from the full matrix."""
    landscape, theta = digits_problem()
    return spectrum.eigenvalues(landscape, theta).flip(0)[:10].numpy()


def top():
    return spectrum.top_eigenvalues(*digits_problem(), k=10, tol=1e-5).eigenvalues.numpy()


def top_curvlinops(tol):
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    landscape, theta = digits_problem()
    net = module(landscape.network, theta)
    operator = HessianLinearOperator(net, nn.CrossEntropyLoss(), list(net.parameters()),
                                     [(landscape.x, landscape.y)], check_deterministic=False)
    start = backend.normal(landscape.M, seed=0).numpy()
    return eigsh(operator.to_scipy(), k=10, which="LA", tol=tol, v0=start, return_eigenvectors=False)[::-1]


def top_pyhessian(tol):
    from pyhessian import hessian

    landscape, theta = digits_problem()
    net = module(landscape.network, theta)
    with float64():
        torch.manual_seed(0)
        curvature = hessian(net, nn.CrossEntropyLoss(), data=(landscape.x, landscape.y), cuda=False)
        values = curvature.eigenvalues(maxIter=2000, tol=tol, top_n=10)[0]
    return np.sort(values)[::-1]


def top_eigenthings(steps):
    from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

    landscape, theta = digits_problem()
    net = module(landscape.network, theta)
    operator = HessianOperator(net, [(landscape.x, landscape.y)], supervised_loss(nn.functional.cross_entropy))
    found = lanczos(operator, k=10, max_iter=steps, which="LA", reorthogonalize=True, seed=0)
    return found.eigenvalues.detach().numpy()


@contextlib.contextmanager
def float64():
    """PyHessian draws its vectors in the default dtype."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


# -- the full Hessian


def full_hessian(hidden):
    landscape, theta = digits_problem((64, hidden, 10), 500, 0)
    return landscape.hessian(theta)


def hessian_func(hidden):
    loss, theta = _functional(hidden)
    return torch.func.hessian(loss)(theta)


def hessian_autograd(hidden, vectorize=False):
    loss, theta = _functional(hidden)
    return torch.autograd.functional.hessian(loss, theta, vectorize=vectorize)


def _functional(hidden):
    """The loss as a function of the flat vector, as one writes it for torch.func: no module, no dictionary."""
    landscape, theta = digits_problem((64, hidden, 10), 500, 0)
    x, y, d = landscape.x, landscape.y, 64

    def loss(t):
        W1, b1, W2, b2 = t.split([d * hidden, hidden, hidden * 10, 10])
        f = torch.tanh(x @ W1.view(hidden, d).T + b1) @ W2.view(10, hidden).T + b2
        return nn.functional.cross_entropy(f, y)

    return loss, theta


# -- 200 small nets


@cache
def small_problem():
    """200 nets of 193 parameters on 80 Gaussian samples with Gaussian targets; square loss."""
    samples = data.gaussian(SAMPLES, 10, 1, seed=0)
    return Landscape(SMALL, samples.x, samples.y, "mse"), SMALL.init(seed=1, batch=NETS)


def adam():
    return descend.adam(*small_problem(), ADAM_STEPS, ADAM_STEP).theta


def adam_loop(nets=NETS):
    landscape, theta = small_problem()
    ends = []
    for start in theta[:nets]:
        net = module(SMALL, start)
        optimiser = torch.optim.Adam(net.parameters(), lr=ADAM_STEP)
        for _ in range(ADAM_STEPS):
            optimiser.zero_grad()
            nn.functional.mse_loss(net(landscape.x), landscape.y).backward()
            optimiser.step()
        ends.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    return torch.stack(ends)


def adam_vmap():
    landscape, theta = small_problem()
    params, _ = stack_module_state([module(SMALL, start) for start in theta])
    skeleton = copy.deepcopy(module(SMALL, theta[0])).to("meta")
    params = {name: p.detach() for name, p in params.items()}

    def loss(p):
        return nn.functional.mse_loss(functional_call(skeleton, p, (landscape.x,)), landscape.y)

    gradient = vmap(grad(loss))
    m = {name: torch.zeros_like(p) for name, p in params.items()}
    v = {name: torch.zeros_like(p) for name, p in params.items()}
    for t in range(1, ADAM_STEPS + 1):
        for name, g in gradient(params).items():
            m[name].mul_(0.9).add_(g, alpha=0.1)
            v[name].mul_(0.999).addcmul_(g, g, value=0.001)
            scale = (v[name] / (1 - 0.999**t)).sqrt_().add_(1e-8)
            params[name].addcdiv_(m[name], scale, value=-ADAM_STEP / (1 - 0.9**t))
    return torch.cat([p.flatten(1) for p in params.values()], 1)


@cache
def trained():
    """Where all 200 nets stand after Adam."""
    return adam()


def to_critical():
    return descend.levenberg_marquardt(small_problem()[0], trained(), tol=1e-8).theta


def to_critical_scipy(nets=2):
    """SciPy's trust-exact on the first two nets, with losslab's own value, gradient and Hessian."""
    landscape = small_problem()[0]

    def both(t):
        value, g = landscape.value_and_gradient(t)
        return float(value), g.numpy()

    ends = [scipy.optimize.minimize(both, start.numpy(), jac=True, method="trust-exact",
                                    hess=lambda t: landscape.hessian(t).numpy(), options={"gtol": 1e-8}).x
            for start in trained()[:nets]]
    return torch.from_numpy(np.stack(ends))
