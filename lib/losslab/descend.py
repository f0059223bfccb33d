"""Many descents at once: gradient descent, also noisy or stochastic, Adam, Levenberg-Marquardt, the last metres."""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import backend
from .landscape import Landscape
from .losses import Square


@dataclass(frozen=True)
class Descent:
    """Where a batch of descents ended. With one start (M,) all batch axes are missing.

    theta (B, M), value (B,), gradient_norm (B,), converged (B,) booleans: |gradient| <= tol; steps: how many were made;
    trajectory (T, B, M): the snapshots that were asked for, the start first, or None.
    """

    theta: Tensor
    value: Tensor
    gradient_norm: Tensor
    converged: Tensor
    steps: int
    trajectory: Tensor | None = None


def gradient_descent(landscape: Landscape, theta, steps: int, step, every: int | None = None) -> Descent:
    """theta <- theta - step * gradient, for every member of the batch; a snapshot `every` so many steps.

    `step` is one number, or (M,), a number for every parameter. Steps d_i^2 * s are a descent with the step s on the
    rescaled landscape phi -> L(d * phi), theta = d * phi: a factor in front of an output weight is a step of its own.

    Raises ValueError for steps < 0 or step <= 0, FloatingPointError where a descent leaves the finite numbers.

    >>> bowl = Landscape.of_function(lambda t: (t ** 2).sum(), M=2)
    >>> gradient_descent(bowl, [[1.0, 0.0], [0.0, 2.0]], steps=100, step=0.1).value.max() < 1e-12
    tensor(True)
    """
    step = _rate(step, landscape)
    return _first_order(landscape, theta, steps, every, lambda theta, g, t: _downhill(theta, g, step))


def langevin(landscape: Landscape, theta, steps: int, step: float, noise: float, seed: int,
             every: int | None = None) -> Descent:
    """theta <- theta - step * gradient + noise * N(0, I): gradient descent that is shaken, every member on its own.

    `noise` is the standard deviation per step and coordinate. In the limit of small steps the members are spread like
    exp(-L / T) with the temperature T = noise^2 / (2 step), if they are given the time and L grows fast enough.

    Raises ValueError for steps < 0, step <= 0 or noise < 0, FloatingPointError where a member leaves the finite
    numbers.

    >>> bowl = Landscape.of_function(lambda t: (t ** 2).sum() / 2, M=1)
    >>> run = langevin(bowl, torch.zeros(2000, 1), steps=300, step=0.02, noise=0.2, seed=0)
    >>> abs(float(run.theta.var()) - 1) < 0.1  # T = 1; the variance of 2,000 members has the deviation 0.03
    True
    """
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise is {noise!r}; expected a number of at least 0")
    draw, step = backend.generator(seed, "noise"), _rate(step, landscape)
    return _first_order(landscape, theta, steps, every,
                        lambda theta, g, t: _downhill(theta, g, step)
                        + backend.normal(*theta.shape, seed=draw, scale=noise))


def adam(landscape: Landscape, theta, steps: int, step=1e-3, betas=(0.9, 0.999), eps: float = 1e-8,
         every: int | None = None) -> Descent:
    """Adam (Kingma and Ba 2015, Algorithm 1) for every member of the batch, full batch of data.

    `step` is one number, or (M,), a number for every parameter. But for eps, the steps |d_i| * s are Adam with the step
    s on the rescaled landscape phi -> L(d * phi), theta = d * phi: Adam forgets the size of a gradient.

    >>> bowl = Landscape.of_function(lambda t: (t ** 2).sum(), M=2)
    >>> adam(bowl, [1.0, -1.0], steps=500, step=0.05).value < 1e-6
    tensor(True)
    """
    first, second = betas
    step = _rate(step, landscape)
    m = v = None

    def update(theta, g, t):
        nonlocal m, v
        if t == 1:
            m, v = torch.zeros_like(g), torch.zeros_like(g)
        m.lerp_(g, 1 - first)  # first * m + (1 - first) * g
        v.mul_(second).addcmul_(g, g, value=1 - second)
        below = (v / (1 - second**t)).sqrt_().add_(eps)
        if torch.is_tensor(step):
            return torch.addcdiv(theta, step * m, below, value=-1 / (1 - first**t))
        return torch.addcdiv(theta, m, below, value=-step / (1 - first**t))

    return _first_order(landscape, theta, steps, every, update)


def sgd(landscape: Landscape, theta, steps: int, step, samples: int, seed: int, momentum: float = 0.9,
        every: int | None = None) -> Descent:
    """Stochastic gradient descent with momentum: m <- momentum * m + g, theta <- theta - step * m, from m = 0.

    g is the gradient on `samples` of the data, drawn anew for every step, without repetition and alike for all members
    of the batch. With samples = n nothing is left to chance: the heavy ball of Polyak 1964; with momentum = 0 too,
    gradient descent.

    Raises ValueError for steps < 0, step <= 0, samples outside 1 to n or a momentum outside [0, 1), TypeError for a
    landscape without samples.

    >>> from losslab import MLP
    >>> line = Landscape(MLP([1, 1]), [[0.0], [1.0], [2.0]], [[1.0], [3.0], [5.0]])
    >>> sgd(line, [0.0, 0.0], steps=300, step=0.05, samples=2, seed=0).theta
    tensor([2.0000, 1.0000], dtype=torch.float64)
    """
    if landscape.n == 0:
        raise TypeError(f"landscape is {landscape!r}; expected one with samples")
    if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples <= landscape.n:
        raise ValueError(f"samples is {samples!r}; expected 1 to {landscape.n}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum!r}; expected from 0 to below 1")
    draw, step, m = backend.generator(seed, "batches"), _rate(step, landscape), 0.0

    def gradient(theta):
        return landscape.of_samples(torch.randperm(landscape.n, generator=draw)[:samples]).gradient(theta)

    def update(theta, g, t):
        nonlocal m
        m = momentum * m + g
        return _downhill(theta, m, step)

    return _first_order(landscape, theta, steps, every, update, gradient)


def _rate(step, landscape):
    """The step as it is, if it is a positive number, or as a tensor (M,) of positive numbers."""
    if isinstance(step, (int, float)):
        if not 0 < step < float("inf"):
            raise ValueError(f"step is {step!r}; expected a positive number")
        return step
    step = backend.tensor(step, "step")
    if step.shape not in ((), (landscape.M,)) or not bool((step > 0).all()):
        raise ValueError(f"step has shape {tuple(step.shape)} and its smallest entry is "
                         f"{float(step.min()) if step.numel() else None}; expected a positive number, or "
                         f"({landscape.M},) positive numbers")
    return step


def _downhill(theta, g, step):
    return torch.addcmul(theta, step, g, value=-1) if torch.is_tensor(step) else theta.sub(g, alpha=step)


def _first_order(landscape, theta, steps, every, update, gradient=None) -> Descent:
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps is {steps!r}; expected an integer of at least 0")
    theta, one = landscape._batch(theta)
    gradient, snapshots = gradient or landscape.gradient, [theta]
    for t in range(1, steps + 1):
        theta = update(theta, gradient(theta), t)
        if every and t % every == 0:
            snapshots.append(theta)
    return _descent(landscape, theta, one, 0.0, steps, torch.stack(snapshots) if every else None)


def _descent(landscape, theta, one, tol, steps, trajectory=None) -> Descent:
    value, gradient = landscape.value_and_gradient(theta)
    norm = gradient.norm(dim=1)
    parts = theta, value, norm, norm <= tol
    if one:
        parts = tuple(p[0] for p in parts)
        trajectory = None if trajectory is None else trajectory[:, 0]
    return Descent(*parts, steps, trajectory)


def levenberg_marquardt(landscape: Landscape, theta, tol: float = 1e-8, max_steps: int = 200) -> Descent:
    """Least squares, many at once: (J^T J + lambda I) delta = -J^T r until |gradient| <= tol.

    J is the Jacobian of the outputs, r = f - y. With fewer samples x outputs than parameters the smaller system
    (J J^T + lambda I) u = -r, delta = J^T u is solved instead; the step is the same. lambda falls where |r|^2 falls as
    the linear model of r predicts, and grows where it does not (Marquardt 1963, Fletcher 1971). Converges fast where
    the residual is small; where it is not, finish with `polish`.

    Raises TypeError when the loss is not the square loss.
    """
    if not isinstance(landscape.loss, Square):
        raise TypeError(f"landscape has the loss {type(landscape.loss).__name__}; expected the square loss")
    flat_y = landscape.y.reshape(-1)
    wide = landscape.n * landscape.k < landscape.M

    def look(theta):
        r = landscape.outputs(theta).flatten(1) - flat_y
        return {"r": r, "measure": r.square().sum(1)}

    def model(theta, state):
        J = landscape.jacobian(theta)
        gram = J @ J.mT if wide else J.mT @ J
        return {"J": J, "gram": gram, "scale": _mean_diagonal(gram), "right": (state["r"].unsqueeze(1) @ J).squeeze(1)}

    def solve(state, damping):
        u, failed = _cholesky_solve(state["gram"], damping, state["r" if wide else "right"])
        return (state["J"].mT @ u.unsqueeze(-1)).squeeze(-1) if wide else u, failed

    def norm(state):
        scale = 2 * landscape.weight * (1 / landscape.k if landscape.loss.per_output else 1)
        return scale * state["right"].norm(dim=1)

    return _damped(landscape, theta, tol, max_steps, look, model, solve, norm)


def polish(landscape: Landscape, theta, tol: float = 1e-12, max_steps: int = 200, method: str = "newton") -> Descent:
    """The last metres from a trained point to a critical point, many at once: |gradient| <= tol.

    method="newton": damped Newton, (H + lambda I) delta = -g, with lambda large enough for a positive definite matrix;
    a step must not raise the loss, so it ends in a minimum, or on the way to one at infinity: a small gradient far out
    is no minimum. method="gradient_norm": Levenberg-Marquardt on |g|^2, (H^2 + lambda I) delta = -H g, by the
    eigenvalues of H, so that H is not squared; a step must lower |g|, so it finds critical points of any index, and
    can stall where H g = 0 with g not 0. `converged` says which members arrived; the others are returned where they
    stopped.

    >>> saddle = Landscape.of_function(lambda t: t[0] ** 2 - t[1] ** 2 + t[0] ** 4, M=2)
    >>> bool(polish(saddle, [0.3, 0.2], method="gradient_norm").converged)
    True
    """
    if method not in ("newton", "gradient_norm"):
        raise ValueError(f"method is {method!r}; expected 'newton' or 'gradient_norm'")
    square = method == "gradient_norm"

    def look(theta):
        value, g = landscape.value_and_gradient(theta)
        return {"g": g, "measure": g.square().sum(1) if square else 2 * value}

    def model(theta, state):
        H = landscape.hessian(theta)
        if not square:
            return {"H": H, "scale": _mean_diagonal(H), "right": state["g"]}
        e, V = torch.linalg.eigh(H)
        c = (V.mT @ state["g"].unsqueeze(-1)).squeeze(-1) * e  # H g in the basis of the eigenvectors
        return {"e": e, "V": V, "c": c, "scale": e.square().mean(1).clamp_min(1e-12), "right": _times(V, c)}

    def solve(state, damping):
        if not square:
            return _cholesky_solve(state["H"], damping, state["g"])
        return -_times(state["V"], state["c"] / (state["e"].square() + damping[:, None])), damping < 0

    return _damped(landscape, theta, tol, max_steps, look, model, solve, norm=lambda s: s["g"].norm(dim=1),
                   slack=0.0 if square else 1e-13)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _mean_diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=1, dim2=2).abs().mean(1).clamp_min(1e-12)


def _cholesky_solve(matrix: Tensor, damping: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """-(matrix + damping I)^-1 right, and which members are not positive definite: their answer is 0."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    factor, info = torch.linalg.cholesky_ex(matrix + damping[:, None, None] * eye)
    failed = info > 0
    factor = torch.where(failed[:, None, None], eye, factor)
    answer = -torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)
    return answer.masked_fill(failed[:, None], 0.0), failed


def _damped(landscape, theta, tol, max_steps, look, model, solve, norm, slack: float = 0.0) -> Descent:
    """Damped second-order steps, each member with a damping of its own; members that have arrived rest.

    `look(theta)` measures: state["measure"] (B,) is to be lowered. Only where a step is taken, `model(theta, state)`
    adds a quadratic model of the measure, half its gradient in state["right"]; `solve(state, damping)` gives steps and
    a mask of failures; `norm(state)` is |gradient|. Where the measure changes by less than rounding, the relative
    `slack`, a step counts that lowers |gradient|.
    """
    theta, one = landscape._batch(theta)
    theta = theta.clone()
    block = max(1, landscape.memory // (8 * 8 * landscape.M * (landscape.M + landscape.n * max(landscape.k, 1))))
    made = 0
    for start in range(0, theta.shape[0], block):
        rows = slice(start, start + block)
        theta[rows], steps = _damped_block(theta[rows], tol, max_steps, look, model, solve, norm, slack)
        made = max(made, steps)
    return _descent(landscape, theta, one, tol, made)


def _damped_block(theta, tol, max_steps, look, model, solve, norm, slack):
    active = torch.arange(theta.shape[0], device=theta.device)
    state = look(theta)
    state |= model(theta, state)
    damping = 1e-3 * torch.ones(theta.shape[0], dtype=theta.dtype, device=theta.device)
    steps = 0
    while steps < max_steps:
        # A damping of 1e12 times the matrix means that no step helps any more: rounding, or a gradient-flat point.
        going = (norm(state) > tol) & (damping < 1e12)
        if not bool(going.all()):
            active, damping, state = active[going], damping[going], {k: v[going] for k, v in state.items()}
        if not active.numel():
            break
        steps += 1
        weight = damping * state["scale"]
        delta, failed = solve(state, weight)
        # The fall that the model predicts: -2 right.delta - delta^T A delta, where (A + weight I) delta = -right.
        linear, quadratic = -(state["right"] * delta).sum(1), weight * delta.square().sum(1)
        # No step longer than ten times theta itself: far out the loss may leave the finite numbers.
        longest = 10 * (1 + theta[active].norm(dim=1))
        cut = (longest / delta.norm(dim=1).clamp_min(1e-300)).clamp_max(1)
        predicted = (2 * cut - cut**2) * linear + cut**2 * quadratic
        candidate = theta[active] + cut[:, None] * delta
        new = look(candidate)
        fall = state["measure"] - new["measure"]
        better, good = fall > 0, fall > 0.75 * predicted
        if slack:
            rounding = fall.abs() <= slack * state["measure"].abs()
            lower = new["g"].norm(dim=1) < state["g"].norm(dim=1)
            better, good = torch.where(rounding, lower, better), torch.where(rounding, lower, good)
        better &= ~failed
        keep = better & (fall > 0.25 * predicted)
        damping = torch.where(better & good, damping / 10, torch.where(keep, damping, damping * 4)).clamp_min(1e-18)
        if bool(better.any()):
            theta[active[better]] = candidate[better]
            taken = {key: value[better] for key, value in new.items()}
            for key, value in (taken | model(candidate[better], taken)).items():
                state[key][better] = value
    return theta, steps
