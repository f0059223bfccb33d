"""Fully connected nets as pure functions of one flat parameter vector: widths, activation, bias or not."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import jvp

from . import backend
from .losses import softplus


@dataclass(frozen=True)
class Activation:
    """An activation with its first two derivatives: `value(z)`, `slope(z, a)`, `bend(z, a, s)`.

    `a` is `value(z)` and `s` is `slope(z, a)`: what is known already is not computed twice. All elementwise.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    bend: Callable[[Tensor, Tensor, Tensor], Tensor]

    def back(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """sigma'(z) e, the step backwards through the activation."""
        if self.value is torch.tanh:
            return torch.ops.aten.tanh_backward(e, a)  # e (1 - a^2) in one sweep over the memory instead of three
        return e if self.name == "identity" else self.slope(z, a) * e


def _of_callable(function) -> Activation:
    """An activation from any smooth elementwise function; the derivatives are exact, by forward-mode."""

    def slope(z):
        return jvp(function, (z,), (torch.ones_like(z),))[1]

    def bend(z):
        return jvp(slope, (z,), (torch.ones_like(z),))[1]

    name = getattr(function, "__name__", type(function).__name__)
    return Activation(name, function, lambda z, a: slope(z), lambda z, a, s: bend(z))


ACTIVATIONS = {
    "tanh": Activation("tanh", torch.tanh, lambda z, a: 1 - a * a, lambda z, a, s: -2 * a * s),
    "sigmoid": Activation("sigmoid", torch.sigmoid, lambda z, a: a * (1 - a), lambda z, a, s: s * (1 - 2 * a)),
    # At the kink the slope is taken as 0, as PyTorch does; the bend is 0 everywhere else.
    "relu": Activation("relu", torch.relu, lambda z, a: (z > 0).to(z.dtype), lambda z, a, s: torch.zeros_like(z)),
    "identity": Activation("identity", lambda z: z, lambda z, a: torch.ones_like(z),
                           lambda z, a, s: torch.zeros_like(z)),
    "quadratic": Activation("quadratic", torch.square, lambda z, a: 2 * z, lambda z, a, s: torch.full_like(z, 2.0)),
    "softplus": Activation("softplus", softplus, lambda z, a: torch.sigmoid(z),
                           lambda z, a, s: s * (1 - s)),
}
_MODULES = {nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.ReLU: "relu", nn.Identity: "identity"}


def activation(which) -> Activation:
    """An `Activation` from its name or from a smooth elementwise function.

    >>> activation("tanh").name, activation(torch.sin).name
    ('tanh', 'sin')
    """
    if isinstance(which, Activation):
        return which
    if isinstance(which, str) and which in ACTIVATIONS:
        return ACTIVATIONS[which]
    if callable(which):
        return _of_callable(which)
    raise ValueError(f"activation is {which!r}; expected one of {', '.join(ACTIVATIONS)}, or a smooth function")


class MLP:
    """A fully connected net: z_l = W_l a_{l-1} + b_l, a_l = sigma(z_l), a_0 = x, output sigma_out(z_K).

    `widths` is (d_0, ..., d_K); W_l has shape (d_l, d_{l-1}). The flat vector theta, shape (M,), holds
    W_1 row by row, b_1, W_2, b_2, ...: the order of `torch.nn.Module.parameters()`. Everything takes a batch
    (B, M) too. The net holds no parameters of its own: it is a function of theta.

    Raises ValueError for widths that are not at least two positive integers and for an unknown activation.

    >>> net = MLP([2, 3, 1])
    >>> net.M, net(net.init(seed=0), torch.zeros(5, 2)).shape
    (13, torch.Size([5, 1]))
    """

    def __init__(self, widths, activation="tanh", bias: bool = True, output_activation="identity"):
        widths = tuple(widths)
        if len(widths) < 2 or any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in widths):
            raise ValueError(f"widths is {widths}; expected at least two positive integers (input, ..., output)")
        self.widths, self.bias = widths, bool(bias)
        self.activation, self.output_activation = _resolve(activation), _resolve(output_activation)
        self.depth = len(widths) - 1
        self.activations = (self.activation,) * (self.depth - 1) + (self.output_activation,)
        # (start of W, start of b, end) of every layer in the flat vector
        self.slots, start = [], 0
        for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
            middle = start + fan_in * fan_out
            end = middle + (fan_out if bias else 0)
            self.slots.append((start, middle, end))
            start = end
        self.M = start

    def __repr__(self):
        return (f"MLP({'-'.join(map(str, self.widths))}, {self.activation.name}, "
                f"{'bias' if self.bias else 'no bias'}, M={self.M})")

    def layers(self, theta: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """[(W_1, b_1), ...] as views of theta: W_l (..., d_l, d_{l-1}), b_l (..., d_l), or None without bias."""
        if theta.shape[-1] != self.M:
            raise ValueError(f"theta has {theta.shape[-1]} entries in its last axis; {self!r} has M = {self.M}")
        shapes = zip(self.slots, self.widths[:-1], self.widths[1:], strict=True)
        return [(theta[..., a:b].unflatten(-1, (d_out, d_in)), theta[..., b:c] if self.bias else None)
                for (a, b, c), d_in, d_out in shapes]

    def flatten(self, layers) -> Tensor:
        """The inverse of `layers`: one flat vector (M,), or (B, M) from layers with a batch axis."""
        if len(layers) != self.depth:
            raise ValueError(f"layers has {len(layers)} entries; {self!r} has {self.depth} layers")
        parts = []
        for number, (W, b) in enumerate(layers, start=1):
            expected = (self.widths[number], self.widths[number - 1])
            if tuple(W.shape[-2:]) != expected:
                raise ValueError(f"layers: W_{number} has shape {tuple(W.shape)}; expected (..., {expected[0]}, "
                                 f"{expected[1]})")
            if (b is not None) != self.bias:
                raise ValueError(f"layers: b_{number} is {'missing' if b is None else 'given'}, but {self!r}")
            parts.append(W.flatten(-2))
            if b is not None:
                parts.append(b)
        return torch.cat(parts, dim=-1)

    @property
    def body(self) -> "MLP":
        """The net without its last layer: its outputs are the features of the last hidden layer.

        >>> MLP([2, 3, 1]).body
        MLP(2-3, tanh, bias, M=9)
        """
        return MLP(self.widths[:-1], self.activation, self.bias, self.activation)

    def init(self, seed: int, scale: float = 1.0, batch: int | None = None) -> Tensor:
        """Gaussian weights of standard deviation scale / sqrt(fan in), zero biases: (M,), or (batch, M).

        Member i of a batch depends on the seed and on i alone, so a larger batch begins with the smaller one. Data
        drawn with the same seed are independent of the weights.
        """
        rows = 1 if batch is None else batch
        theta = backend.normal(rows, self.M, seed=backend.generator(seed, "weights"), scale=scale)
        for (a, b, c), fan_in in zip(self.slots, self.widths[:-1], strict=True):
            theta[:, a:b] /= fan_in**0.5
            theta[:, b:c] = 0
        return theta[0] if batch is None else theta

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs (n, k), or (B, n, k) for a batch theta (B, M); x has shape (n, d)."""
        one = theta.dim() == 1
        a = torch.as_tensor(x, dtype=theta.dtype, device=theta.device)
        if a.dim() != 2 or a.shape[1] != self.widths[0]:
            raise ValueError(f"x has shape {tuple(a.shape)}; expected (n, {self.widths[0]})")
        a = a.mT  # samples as columns, as in the book's formulas
        for (W, b), sigma in zip(self.layers(theta[None] if one else theta), self.activations, strict=True):
            a = sigma.value(affine(W, a, b))
        return a.mT[0] if one else a.mT

    @classmethod
    def of_module(cls, module: nn.Module) -> "MLP | None":
        """The MLP that computes what `module` computes, or None.

        Recognised are a `Linear` and a `Sequential` of `Linear` layers with one kind of activation between them.
        """
        parts = list(module) if isinstance(module, nn.Sequential) else [module]
        linear = [p for p in parts if type(p) is nn.Linear]
        names = [_MODULES.get(type(p)) for p in parts if type(p) is not nn.Linear]
        alternating = all((type(p) is nn.Linear) == (i % 2 == 0) for i, p in enumerate(parts))
        if not linear or not alternating or None in names:
            return None
        between = names[: len(linear) - 1]
        if len(set(between)) > 1 or len({p.bias is None for p in linear}) > 1:
            return None
        widths = [linear[0].in_features] + [p.out_features for p in linear]
        after = names[len(linear) - 1] if len(names) == len(linear) else "identity"
        return cls(widths, between[0] if between else "identity", linear[0].bias is not None, after)


_resolve = activation  # MLP's own parameter is called `activation` too


def affine(W: Tensor, a: Tensor, b: Tensor | None) -> Tensor:
    """W a + b: W (B, e, d), a (B, d, n) or shared (d, n), b (B, e) -> (B, e, n)."""
    if a.dim() == 3:
        return W @ a if b is None else torch.baddbmm(b.unsqueeze(-1), W, a)
    flat = W.reshape(-1, W.shape[-1])
    z = flat @ a if b is None else torch.addmm(b.reshape(-1, 1), flat, a)
    return z.view(*W.shape[:2], -1)
