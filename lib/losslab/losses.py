"""Losses per sample, with their first two derivatives in the network's outputs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import grad, hessian, vmap


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z). PyTorch's own replaces it by z above 20, an error of 2e-9: too much for float64 claims."""
    return torch.logaddexp(z, torch.zeros_like(z))


class Loss:
    """A loss l(f, y) of one sample, summed over the samples with weight 1 ("sum") or 1/n ("mean").

    Outputs f have shape (..., n, k). Targets y have shape (n, k), or (n,) for class labels.
    `values`, `gradient` and `curvature` return l, its gradient and its k x k Hessian in f.
    """

    labels = False  # targets are class labels (n,) rather than numbers (n, k)

    def __init__(self, reduction: str = "mean"):
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; expected 'mean' or 'sum'")
        self.reduction = reduction

    def weight(self, n: int) -> float:
        """The factor in front of each sample's loss."""
        return 1.0 / n if self.reduction == "mean" else 1.0

    def values(self, f: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def curvature_product(self, f: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The Hessian in f times v, shape (..., n, k)."""
        return (self.curvature(f, y) @ v.unsqueeze(-1)).squeeze(-1)


class Square(Loss):
    """l = |f - y|^2, the square loss. With `per_output` it is divided by k, as torch.nn.MSELoss does."""

    def __init__(self, reduction: str = "mean", per_output: bool = False):
        super().__init__(reduction)
        self.per_output = per_output

    def scale(self, k: int) -> float:
        """The factor in front of |f - y|^2 for k outputs."""
        return 1.0 / k if self.per_output else 1.0

    def values(self, f, y):
        return self.scale(f.shape[-1]) * (f - y).square().sum(-1)

    def gradient(self, f, y):
        return (f - y).mul_(2 * self.scale(f.shape[-1]))

    def curvature(self, f, y):
        eye = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)
        return (2 * self.scale(f.shape[-1]) * eye).expand(*f.shape, f.shape[-1])

    def curvature_product(self, f, y, v):
        return 2 * self.scale(f.shape[-1]) * v


class CrossEntropy(Loss):
    """l = logsumexp(f) - f_y for class labels y. Its Hessian in f is diag(p) - p p^T with p = softmax(f)."""

    labels = True

    def values(self, f, y):
        picked = f.gather(-1, y.expand(f.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        return torch.logsumexp(f, -1) - picked

    @staticmethod
    def _softmax(f):
        return (f - torch.logsumexp(f, -1, keepdim=True)).exp_()  # unlike torch.softmax it keeps the memory layout of f

    def gradient(self, f, y):
        p = self._softmax(f)
        index = y.expand(f.shape[:-1]).unsqueeze(-1)
        return p.scatter_add_(-1, index, -torch.ones_like(index, dtype=p.dtype))

    def curvature(self, f, y):
        p = self._softmax(f)
        return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)

    def curvature_product(self, f, y, v):
        p = self._softmax(f)
        return p * (v - (p * v).sum(-1, keepdim=True))


class Logistic(Loss):
    """l = sum over outputs of log(1 + e^f) - y f, for y in [0, 1]: the loss that matches the logistic function."""

    def values(self, f, y):
        return (softplus(f) - y * f).sum(-1)

    def gradient(self, f, y):
        return torch.sigmoid(f) - y

    def curvature(self, f, y):
        p = torch.sigmoid(f)
        return torch.diag_embed(p * (1 - p))


class PerSample(Loss):
    """Any smooth function (f, y) -> number of one sample (f and y without the sample axis), by torch.func."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], reduction: str = "mean", labels: bool = False):
        super().__init__(reduction)
        self.function, self.labels = function, labels

    def _map(self, function, f, y):
        mapped = vmap(function)
        for _ in f.shape[:-2]:
            mapped = vmap(mapped, in_dims=(0, None))
        return mapped(f, y)

    def values(self, f, y):
        return self._map(self.function, f, y)

    def gradient(self, f, y):
        return self._map(grad(self.function), f, y)

    def curvature(self, f, y):
        return self._map(hessian(self.function), f, y)


LOSSES = {
    "mse": lambda: Square("mean"),
    "sse": lambda: Square("sum"),
    "cross_entropy": lambda: CrossEntropy("mean"),
    "logistic": lambda: Logistic("mean"),
}


def as_loss(loss) -> Loss:
    """A `Loss` from a name, a `Loss`, torch.nn.MSELoss, torch.nn.CrossEntropyLoss, or a function of one sample.

    >>> as_loss("mse").reduction
    'mean'
    >>> as_loss("hinge")
    Traceback (most recent call last):
        ...
    ValueError: loss is 'hinge'; expected one of mse, sse, cross_entropy, logistic, a Loss, or a function of one sample
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]()
    if isinstance(loss, nn.MSELoss) and loss.reduction in ("mean", "sum"):
        return Square(loss.reduction, per_output=loss.reduction == "mean")
    if isinstance(loss, nn.CrossEntropyLoss):
        if loss.weight is not None or loss.label_smoothing or loss.ignore_index >= 0 or loss.reduction == "none":
            raise ValueError("loss is a CrossEntropyLoss with weights, label smoothing, ignore_index or reduction "
                             "'none'; expected a plain one, or a function of one sample")
        return CrossEntropy(loss.reduction)
    if callable(loss) and not isinstance(loss, nn.Module):
        return PerSample(loss)
    raise ValueError(f"loss is {loss!r}; expected one of {', '.join(LOSSES)}, a Loss, or a function of one sample")
