"""Value, gradient, Jacobian, Hessian-vector product and Hessian of any torch module or function, by torch.func."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jacrev, jvp, vjp, vmap

from . import backend

VECTORS = 64  # Hessian-vector products at a time: the fastest width that was measured for vmap(jvp(grad))
LARGE = 20_000  # above this many parameters a kept graph, one vector at a time, is faster than vmap


class Autodiff:
    """A route of `Landscape` for any module in eval mode; it works on a float64 copy of the module.

    Raises TypeError for something that is no module, ValueError for a module in train mode or without parameters.
    """

    def __init__(self, module: nn.Module):
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module; got {type(module).__name__}")
        training = [(name or "the module itself", part) for name, part in module.named_modules() if part.training]
        if training:
            # Name the part that makes a difference, where there is one.
            telling = [t for t in training if "Norm" in type(t[1]).__name__ or "Dropout" in type(t[1]).__name__]
            name, part = (telling or training)[0]
            raise ValueError(f"module is in train mode ({name}: {type(part).__name__}), where its output can depend on "
                             "the batch or on chance; expected eval mode: call module.eval() first")
        self.module = copy.deepcopy(module).to(device=backend.device(), dtype=backend.dtype()).requires_grad_(False)
        self.shapes = {name: p.shape for name, p in self.module.named_parameters()}
        self.theta0 = torch.cat([p.reshape(-1) for p in self.module.parameters()]) if self.shapes else None
        if self.theta0 is None:
            raise ValueError("module has no parameters; expected at least one")
        self.M = self.theta0.numel()
        self._activations = None

    def _call(self, theta: Tensor, x: Tensor) -> Tensor:
        parts = theta.split([s.numel() for s in self.shapes.values()])
        named = {name: part.view(s) for (name, s), part in zip(self.shapes.items(), parts, strict=True)}
        return functional_call(self.module, named, (x,))

    def bytes_per_sample(self, work: str) -> int:
        """An estimate in bytes, from the sizes of the layers' outputs for one sample."""
        return 8 * (self._activations or 1) * {"value": 2, "gradient": 6, "hvp": 12, "hessian": 12 * VECTORS,
                                               "jacobian": 6 * VECTORS}[work]

    def measure(self, x: Tensor) -> None:
        """Count the numbers that one forward pass of one sample makes: the base of every memory estimate."""
        sizes = []
        hooks = [part.register_forward_hook(lambda _, __, out: sizes.append(out.numel() if torch.is_tensor(out) else 0))
                 for part in self.module.modules() if not list(part.children())]
        with torch.no_grad():
            self.module(x[:1])
        for hook in hooks:
            hook.remove()
        self._activations = sum(sizes) + x[0].numel()

    def outputs(self, theta, x):
        return vmap(self._call, in_dims=(0, None))(theta, x)

    def _loss(self, x, y, loss, weight):
        return lambda theta: weight * loss.values(self._call(theta, x), y).sum(-1)

    def value(self, theta, x, y, loss, weight):
        return vmap(self._loss(x, y, loss, weight))(theta)

    def in_span(self, frame, x, y, loss, weight):
        return lambda c: self.value(c @ frame, x, y, loss, weight)

    def value_and_gradient(self, theta, x, y, loss, weight):
        gradients, values = vmap(grad_and_value(self._loss(x, y, loss, weight)))(theta)
        return values, gradients

    def gradient(self, theta, x, y, loss, weight):
        return vmap(grad(self._loss(x, y, loss, weight)))(theta)

    def jacobian(self, theta, x):
        return vmap(jacrev(lambda t: self._call(t, x)))(theta)

    def at(self, theta, x, y, loss):
        return theta

    def hvp(self, theta, v, x, y, loss, weight, part):
        L = self._loss(x, y, loss, weight)
        if part == "full" and self.M > LARGE and theta.shape[0] == 1:
            return _kept_graph(L, theta[0], v)
        products = {
            "full": lambda t, u: jvp(grad(L), (t,), (u,))[1],
            "gauss_newton": lambda t, u: self._gauss_newton(t, u, x, y, loss, weight),
        }
        products["residual"] = lambda t, u: products["full"](t, u) - products["gauss_newton"](t, u)
        dims = (0 if theta.shape[0] == v.shape[0] and theta.shape[0] > 1 else None, 0)
        return vmap(products[part], in_dims=dims)(theta if dims[0] == 0 else theta[0], v)

    def _gauss_newton(self, theta, u, x, y, loss, weight):
        """J^T l'' J u: forward mode, the loss's own curvature, reverse mode (Schraudolph 2002)."""
        f, df = jvp(lambda t: self._call(t, x), (theta,), (u,))
        back = vjp(lambda t: self._call(t, x), theta)[1]
        return weight * back(loss.curvature_product(f, y, df))[0]

    def hessian(self, theta, x, y, loss, weight, part):
        H = theta.new_empty(theta.shape[0], self.M, self.M)
        for t, rows in zip(theta, H, strict=True):
            for start in range(0, self.M, VECTORS):
                some = rows[start : start + VECTORS]
                units = torch.zeros_like(some)
                units.diagonal(start).fill_(1.0)
                some.copy_(self.hvp(t[None], units, x, y, loss, weight, part))
        return H.add_(H.mT.clone()).div_(2)  # the two halves differ by rounding only


def _kept_graph(function, theta: Tensor, v: Tensor) -> Tensor:
    """Hessian-vector products one at a time on one kept graph of the gradient."""
    with torch.enable_grad():
        t = theta.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(function(t), t, create_graph=True)
        return torch.stack([torch.autograd.grad(g, t, u, retain_graph=True)[0] for u in v])
