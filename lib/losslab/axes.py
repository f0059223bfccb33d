"""Matplotlib's axes for tensors: plumbing behind `figures`, so that no lesson has to say where its numbers lie."""
from functools import wraps

from matplotlib.axes import Axes

DRAWING = """plot semilogx semilogy loglog step errorbar scatter fill_between fill_betweenx hist bar stairs stem text
annotate vlines hlines axvline axhline axvspan axhspan contour contourf set set_xlim set_ylim""".split()


def numbers(value):
    """A tensor as a NumPy array, also inside a list, a tuple or a dict. Everything else stays as it is.

    >>> import torch
    >>> numbers([torch.tensor([1.0, 2.0], requires_grad=True), "text"])
    [array([1., 2.], dtype=float32), 'text']
    """
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {key: numbers(v) for key, v in value.items()}
    return type(value)(map(numbers, value)) if type(value) in (list, tuple) else value


class TensorAxes(Axes):
    """Axes whose drawing methods take tensors as well, on a GPU or with a gradient. A title is as large as a label."""

    def set_title(self, label, **kwargs):
        return super().set_title(label, **{"fontsize": 10} | kwargs)


def _taking_tensors(method):
    @wraps(method)
    def wrapped(self, *args, **kwargs):
        return method(self, *numbers(args), **numbers(kwargs))

    return wrapped


for _name in DRAWING:
    setattr(TensorAxes, _name, _taking_tensors(getattr(Axes, _name)))
