"""`Landscape`: value, gradient, Hessian, Hessian-vector product, Gauss-Newton split; batched, in bounded memory."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.func import grad_and_value, hessian, jvp, vmap

from . import backend
from .autodiff import Autodiff
from .layerwise import PARTS, Layerwise
from .losses import as_loss
from .network import MLP

CACHE = 12_000_000  # bytes: larger blocks of a batch leave the processor's cache and get no faster
POINTS = 8  # points of a span at a time, at the least, on some of the samples


class Landscape:
    """The loss L of a network on data, as a function of the flat parameter vector theta.

    L(theta) = w * sum over samples of l(f_theta(x_i), y_i), with w = 1 for "sse" and w = 1/n for the other names.
    x has shape (n, d), samples as rows; y has shape (n, k), (n,) where k = 1, or (n,) class labels. Every method takes
    one vector (M,) or a batch (B, M) and answers with the same batch axis. Samples and batch are worked through in
    blocks, so that intermediate results stay within `memory` (bytes, or text such as "256 MB") beside the result.

    A fully connected net's derivatives are written out layer by layer (`layerwise`); any other module goes through
    torch.func (`autodiff`). Nothing after this file asks which.

    Raises TypeError or ValueError, with the argument's name, for wrong shapes, dtypes, non-finite data, an unknown
    loss; FloatingPointError where the loss or a derivative is not finite.

    >>> net = MLP([1, 3, 1])
    >>> landscape = Landscape(net, [[0.0], [1.0], [2.0]], [[1.0], [0.0], [1.0]])
    >>> theta = net.init(seed=0, batch=4)
    >>> landscape.value(theta).shape, landscape.gradient(theta).shape, landscape.hessian(theta[0]).shape
    (torch.Size([4]), torch.Size([4, 10]), torch.Size([10, 10]))
    """

    def __init__(self, network: MLP, x, y, loss="mse", memory="256 MB"):
        if not isinstance(network, MLP):
            raise TypeError(f"network must be a losslab.MLP; got {type(network).__name__}; for a torch module use "
                            "Landscape.of_module(module, (x, y), loss)")
        self.network = network
        x = backend.tensor(x, "x")
        if x.dim() != 2 or x.shape[1] != network.widths[0]:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (n, {network.widths[0]}) for {network!r}")
        self._set_up(Layerwise(network), x, y, loss, memory, network.widths[-1])

    def _set_up(self, route, x, y, loss, memory, k):
        if x.shape[0] == 0:
            raise ValueError("x has no samples; expected at least one")
        self._route, self.x, self.loss, self.M = route, x, as_loss(loss), route.M
        self.n, self.k = x.shape[0], k
        self.y = _targets(y, self.n, k, self.loss.labels)
        self.memory = backend.to_bytes(memory)
        self.weight = self.loss.weight(self.n)

    @classmethod
    def of_module(cls, module: nn.Module, data, loss="mse", memory="256 MB", route: str = "auto") -> "Landscape":
        """The landscape of any torch.nn.Module in eval mode on `data` = (x, y) or a DataLoader of such pairs.

        The module itself is not touched: its parameters at this moment are `landscape.theta0`, in float64. A chain of
        `Linear` layers with one activation is recognised and takes the layer-wise route; `route="autodiff"` prevents
        that. Outputs must have shape (n, k).

        >>> module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 1)).eval()
        >>> landscape = Landscape.of_module(module, (torch.zeros(5, 2), torch.ones(5, 1)))
        >>> landscape.M, landscape.gradient(landscape.theta0).shape
        (19, torch.Size([19]))
        """
        if route not in ("auto", "autodiff"):
            raise ValueError(f"route is {route!r}; expected 'auto' or 'autodiff'")
        general = Autodiff(module)
        x, y = _data(data)
        if x.dim() < 2 or x.shape[0] == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (n, ...) with at least one sample")
        with torch.no_grad():
            sample = general.module(x[:2])
        if not torch.is_tensor(sample) or sample.dim() != 2 or sample.shape[0] != min(2, x.shape[0]):
            got = tuple(sample.shape) if torch.is_tensor(sample) else type(sample).__name__
            raise ValueError(f"module returns {got} for {min(2, x.shape[0])} samples; expected a tensor (n, k)")
        general.measure(x)
        net = MLP.of_module(module) if route == "auto" and x.dim() == 2 else None
        self = cls.__new__(cls)
        self.network = net or module
        self.theta0 = general.theta0.clone()
        self._set_up(Layerwise(net) if net else general, x, y, loss, memory, sample.shape[1])
        return self

    @classmethod
    def of_function(cls, function: Callable[[Tensor], Tensor], M: int) -> "Landscape":
        """The landscape of a smooth function of a vector (M,), written with torch: for examples such as x^4.

        >>> saddle = Landscape.of_function(lambda t: t[0] ** 2 - t[1] ** 2, M=2)
        >>> saddle.hessian([0.0, 0.0])
        tensor([[ 2.,  0.],
                [ 0., -2.]], dtype=torch.float64)
        """
        return _OfFunction(function, M)

    def of_samples(self, rows) -> "Landscape":
        """The landscape of some of the samples, by their numbers from 0 (m,): the loss on a mini-batch.

        Raises TypeError for a landscape without samples, ValueError where no rows are given or one is not there.

        >>> whole = Landscape(MLP([1, 1]), [[0.0], [1.0], [2.0]], [[1.0], [3.0], [6.0]])
        >>> float(whole.value([2.0, 1.0])), float(whole.of_samples([2, 0]).value([2.0, 1.0]))
        (0.3333333333333333, 0.5)
        """
        if self.n == 0:
            raise TypeError(f"{self!r} has no samples to choose from")
        rows = torch.as_tensor(rows, dtype=torch.int64)
        if rows.dim() != 1 or not len(rows) or not 0 <= int(rows.min()) <= int(rows.max()) < self.n:
            raise ValueError(f"rows is {rows.tolist()}; expected numbers from 0 to {self.n - 1}, at least one")
        part, rows = copy.copy(self), rows.to(self.x.device)
        part.x, part.y, part.n, part.weight = self.x[rows], self.y[rows], len(rows), self.loss.weight(len(rows))
        return part

    def __repr__(self):
        name = self.network if isinstance(self.network, MLP) else type(self.network).__name__
        return f"Landscape({name}, n={self.n}, M={self.M}, {type(self.loss).__name__})"

    # -- values and first derivatives

    def outputs(self, theta) -> Tensor:
        """Network outputs f_theta(x_i): (n, k), or (B, n, k)."""
        theta, one = self._batch(theta)
        out = theta.new_empty(theta.shape[0], self.n, self.k)
        for b, i in self._blocks(theta.shape[0], "value"):
            out[b, i] = self._route.outputs(theta[b], self.x[i])
        return self._answer(out, one, "the output")

    def value(self, theta) -> Tensor:
        """L(theta): a number (), or (B,)."""
        theta, one = self._batch(theta)
        (out,) = self._summed(theta, "value", lambda t, x, y: [self._route.value(t, x, y, self.loss, self.weight)])
        return self._answer(out, one, "the loss")

    def value_in_span(self, origin, directions, coordinates) -> Tensor:
        """L(origin + sum_p c_p direction_p) for every row c of `coordinates` (G, P); directions (P, M). Shape (G,).

        The layer-wise route computes the first layer's pre-activation once for the origin and for every direction: it
        is affine in c.
        """
        origin, one = self._batch(origin, "origin")
        directions, single = self._batch(directions, "directions")
        c = backend.tensor(coordinates, "coordinates")
        if not one or single or c.dim() != 2 or c.shape[1] != directions.shape[0]:
            raise ValueError(f"origin, directions, coordinates have shapes {tuple(origin.shape)}, "
                             f"{tuple(directions.shape)}, {tuple(c.shape)}; expected (M,), (P, M), (G, P)")
        return self._answer(self._span(torch.cat([origin, directions]), c), False, "the loss")

    def _span(self, frame, c):
        c = torch.cat([torch.ones_like(c[:, :1]), c], 1)
        out = c.new_zeros(c.shape[0])
        # Some points at a time on few enough samples that both stay in the cache.
        fitting = max(1, min(self.memory, CACHE) // self._route.bytes_per_sample("value"))
        rows = min(self.n, max(1, fitting // POINTS))
        for i in _slices(self.n, rows):
            value = self._route.in_span(frame, self.x[i], self.y[i], self.loss, self.weight)
            for g in _slices(len(c), max(1, fitting // rows)):
                out[g] += value(c[g])
        return out

    def value_and_gradient(self, theta) -> tuple[Tensor, Tensor]:
        """L and its gradient from one sweep: ((), (M,)), or ((B,), (B, M))."""
        theta, one = self._batch(theta)
        values, gradients = self._summed(
            theta, "gradient", lambda t, x, y: self._route.value_and_gradient(t, x, y, self.loss, self.weight))
        return self._answer(values, one, "the loss"), self._answer(gradients, one, "the gradient")

    def gradient(self, theta) -> Tensor:
        """g = dL/dtheta: (M,), or (B, M)."""
        theta, one = self._batch(theta)
        (out,) = self._summed(
            theta, "gradient", lambda t, x, y: [self._route.gradient(t, x, y, self.loss, self.weight)])
        return self._answer(out, one, "the gradient")

    def jacobian(self, theta) -> Tensor:
        """J, the derivative of all stacked outputs: (n k, M), or (B, n k, M); row i k + c is output c of sample i."""
        theta, one = self._batch(theta)
        out = theta.new_empty(theta.shape[0], self.n, self.k, self.M)
        for b, i in self._blocks(theta.shape[0], "jacobian"):
            out[b, i] = self._route.jacobian(theta[b], self.x[i])
        return self._answer(out.flatten(1, 2), one, "the Jacobian")

    # -- second derivatives

    def hessian(self, theta, part: str = "full") -> Tensor:
        """H = d2L/dtheta2: (M, M), or (B, M, M). `part` picks H ("full"), H0 ("gauss_newton") or H1 ("residual")."""
        theta, one = self._batch(theta)
        _check_part(part)

        def block(t, x, y):
            point = self._route.at(t, x, y, self.loss)
            return [self._route.hessian(point, x, y, self.loss, self.weight, part)]

        (out,) = self._summed(theta, "hessian", block, per_vector=2 * 8 * self.M**2)
        return self._answer(out, one, "the Hessian")

    def gauss_newton(self, theta) -> Tensor:
        """H0 = w * sum of J_i^T l''_i J_i, the part of H from the loss's own curvature; positive semidefinite."""
        return self.hessian(theta, "gauss_newton")

    def residual(self, theta) -> Tensor:
        """H1 = w * sum over samples and outputs of dl/df_c * d2f_c/dtheta2; H = H0 + H1."""
        return self.hessian(theta, "residual")

    def hvp(self, theta, v, part: str = "full") -> Tensor:
        """H v without H. theta (M,) with v (M,) or (P, M), or theta (B, M) with v (B, M); the shape of v comes back."""
        theta, one = self._batch(theta)
        v, single = self._batch(v, "v")
        _check_part(part)
        if not one and (single or v.shape[0] != theta.shape[0]):
            raise ValueError(f"v has shape {tuple(v[0].shape if single else v.shape)}; expected {tuple(theta.shape)}, "
                             "one vector for each of theta's, or one theta (M,)")
        if one:
            points = (self._at(theta, i) for i in self._rows("hvp"))
            return self._answer(self._products(points, v, part), single, "H v")
        out = torch.zeros_like(v)
        for b, i in self._blocks(theta.shape[0], "hvp"):
            point = self._at(theta[b], i)[0]
            out[b] += self._route.hvp(point, v[b], self.x[i], self.y[i], self.loss, self.weight, part)
        return self._answer(out, False, "H v")

    def operator(self, theta, part: str = "full") -> LinearOperator:
        """H (or a part) at one theta as a SciPy LinearOperator (M, M): for eigsh, cg, svds and the like.

        The sweeps at theta are made once and kept, where they fit into `memory`.
        """
        theta = self._single(theta)
        _check_part(part)
        rows = self._rows("hvp")
        kept = [self._at(theta, i) for i in rows] if len(rows) == 1 else None

        def apply(columns: np.ndarray) -> np.ndarray:
            v = torch.as_tensor(np.ascontiguousarray(columns.reshape(self.M, -1).T), device=theta.device)
            points = kept if kept is not None else (self._at(theta, i) for i in rows)
            return self._products(points, v, part).T.cpu().numpy().reshape(columns.shape)

        return LinearOperator((self.M, self.M), matvec=apply, matmat=apply, rmatvec=apply, rmatmat=apply,
                              dtype=np.float64)

    def _at(self, theta, rows):
        return self._route.at(theta, self.x[rows], self.y[rows], self.loss), rows

    def _products(self, points, v, part):
        """Sum over the blocks of samples of H v, a block of vectors at a time."""
        out = torch.zeros_like(v)
        for point, i in points:
            size = self.x[i].shape[0] * self._route.bytes_per_sample("hvp")
            for b in _slices(v.shape[0], max(1, min(self.memory, CACHE) // size)):
                out[b] += self._route.hvp(point, v[b], self.x[i], self.y[i], self.loss, self.weight, part)
        return out

    # -- blocks and checks

    def _rows(self, work) -> list[slice]:
        return _slices(self.n, max(1, self.memory // self._route.bytes_per_sample(work)))

    def _blocks(self, B: int, work: str, per_vector: int = 0) -> list[tuple[slice, slice]]:
        """(slice of the batch, slice of the samples): a block's work fits into `memory`, and where it can the cache."""
        whole = self.n * self._route.bytes_per_sample(work) + per_vector
        if whole > self.memory:
            return [(b, i) for b in _slices(B, 1) for i in self._rows(work)]
        parts = -(-B // max(1, min(self.memory, CACHE) // whole))
        return [(b, slice(0, self.n)) for b in _slices(B, -(-B // parts))]

    def _summed(self, theta, work: str, function, per_vector: int = 0) -> list[Tensor]:
        """function(theta, x, y) -> tensors with a batch axis, block by block: summed over the samples' blocks."""
        blocks, totals = self._blocks(len(theta), work, per_vector), None
        for b, i in blocks:
            parts = function(theta[b], self.x[i], self.y[i])
            if len(blocks) == 1:
                return parts
            totals = totals or [part.new_zeros(len(theta), *part.shape[1:]) for part in parts]
            for total, part in zip(totals, parts, strict=True):
                total[b] += part
        return totals

    def _batch(self, theta, name: str = "theta") -> tuple[Tensor, bool]:
        theta = backend.tensor(theta, name)
        if theta.dim() not in (1, 2) or theta.shape[-1] != self.M:
            raise ValueError(f"{name} has shape {tuple(theta.shape)}; expected ({self.M},) or (B, {self.M})")
        return (theta[None], True) if theta.dim() == 1 else (theta, False)

    def point(self, theta, name: str = "theta") -> Tensor:
        """theta as one finite vector (M,) on the device; a ValueError that names it, where it is none."""
        theta = backend.tensor(theta, name)
        if theta.shape != (self.M,):
            raise ValueError(f"{name} has shape {tuple(theta.shape)}; expected ({self.M},)")
        return theta

    def _single(self, theta) -> Tensor:
        theta, one = self._batch(theta)
        if not one:
            raise ValueError(f"theta has shape {tuple(theta.shape)}; expected one vector ({self.M},)")
        return theta

    @staticmethod
    def _answer(out: Tensor, one: bool, what: str) -> Tensor:
        if not backend.all_finite(out) and not bool(torch.isfinite(out).all()):
            bad = (~torch.isfinite(out)).flatten(1).any(1) if out.dim() > 1 else ~torch.isfinite(out)
            raise FloatingPointError(f"{what} is not finite at {int(bad.sum())} of {bad.numel()} parameter vectors, "
                                     f"first at index {int(bad.nonzero()[0])}")
        return out[0] if one else out


class _OfFunction(Landscape):
    """A landscape that is given by a function; it has no samples and no outputs."""

    def __init__(self, function, M):
        if not callable(function):
            raise TypeError(f"function must be callable; got {type(function).__name__}")
        if isinstance(M, bool) or not isinstance(M, int) or M < 1:
            raise ValueError(f"M is {M!r}; expected a positive integer")
        self.M, self.n, self.k, self._function, self.memory = M, 0, 0, function, backend.to_bytes("256 MB")
        shape = tuple(function(torch.zeros(M, dtype=backend.dtype(), device=backend.device())).shape)
        if shape != ():
            raise ValueError(f"function returns shape {shape} for a vector ({M},); expected one number, shape ()")

    def __repr__(self):
        return f"Landscape(function of {self.M} variables)"

    def value(self, theta):
        theta, one = self._batch(theta)
        return self._answer(vmap(self._function)(theta), one, "the function")

    def value_and_gradient(self, theta):
        theta, one = self._batch(theta)
        gradients, values = vmap(grad_and_value(self._function))(theta)
        return self._answer(values, one, "the function"), self._answer(gradients, one, "the gradient")

    def gradient(self, theta):
        return self.value_and_gradient(theta)[1]

    def _span(self, frame, c):
        return self.value(torch.cat([torch.ones_like(c[:, :1]), c], 1) @ frame)

    def hessian(self, theta, part="full"):
        self._only_full(part)
        theta, one = self._batch(theta)
        return self._answer(vmap(hessian(self._function))(theta), one, "the Hessian")

    def hvp(self, theta, v, part="full"):
        self._only_full(part)
        theta, one = self._batch(theta)
        v, single = self._batch(v, "v")
        gradient = torch.func.grad(self._function)
        out = vmap(lambda t, u: jvp(gradient, (t,), (u,))[1])(theta.expand(v.shape) if one else theta, v)
        return self._answer(out, single, "H v")

    def operator(self, theta, part="full"):
        self._only_full(part)
        theta = self._single(theta)
        H = self.hessian(theta[0]).cpu().numpy()
        return LinearOperator(H.shape, matvec=H.__matmul__, matmat=H.__matmul__, dtype=np.float64)

    def outputs(self, theta):
        raise TypeError("this landscape is a function, not a network on data: it has no outputs")

    jacobian = outputs

    @staticmethod
    def _only_full(part):
        if part != "full":
            raise TypeError(f"this landscape is a function, not a network on data: it has no {part} part")


def _check_part(part):
    if part not in PARTS:
        raise ValueError(f"part is {part!r}; expected one of {', '.join(PARTS)}")


def _slices(total: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


def _data(data) -> tuple[Tensor, Tensor]:
    """x and y from a pair, or from everything a DataLoader yields."""
    if isinstance(data, torch.utils.data.DataLoader):
        batches = list(data)
        if not batches or any(not isinstance(batch, list | tuple) or len(batch) != 2 for batch in batches):
            raise ValueError("data is a DataLoader that does not yield pairs (x, y); expected such pairs")
        data = tuple(torch.cat([batch[j] for batch in batches]) for j in (0, 1))
    if not isinstance(data, list | tuple) or len(data) != 2:
        raise TypeError(f"data must be a pair (x, y) or a DataLoader; got {type(data).__name__}")
    return backend.tensor(data[0], "data[0] (x)"), torch.as_tensor(data[1])


def _targets(y, n: int, k: int, labels: bool) -> Tensor:
    """Checked targets: labels (n,) in 0..k-1, or numbers (n, k)."""
    if labels:
        y = torch.as_tensor(y)
        if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise TypeError(f"y has dtype {y.dtype}; this loss takes integer class labels (n,)")
        if tuple(y.shape) != (n,):
            raise ValueError(f"y has shape {tuple(y.shape)}; expected ({n},) class labels")
        if int(y.min()) < 0 or int(y.max()) >= k:
            raise ValueError(f"y has labels from {int(y.min())} to {int(y.max())}; expected 0 to {k - 1}")
        return y.to(device=backend.device(), dtype=torch.long)
    y = backend.tensor(y, "y")
    if y.dim() == 1 and k == 1:
        y = y[:, None]
    if tuple(y.shape) != (n, k):
        raise ValueError(f"y has shape {tuple(y.shape)}; expected ({n}, {k})")
    return y
