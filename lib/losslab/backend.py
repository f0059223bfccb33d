"""The device, the dtype, the scale, seeded numbers: the only file that says "cuda"."""

import hashlib
import math
import os

import torch


def device() -> torch.device:
    """The device of every experiment: `LOSSLAB_DEVICE`, or CUDA where there is one, or the CPU.

    Raises ValueError for another name, RuntimeError when CUDA is asked for and there is none.

    >>> device().type in ("cpu", "cuda")
    True
    """
    wanted = os.environ.get("LOSSLAB_DEVICE", "auto").strip().lower()
    if wanted in ("", "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"LOSSLAB_DEVICE is {wanted!r}; expected 'auto', 'cpu', 'cuda' or 'cuda:<number>'")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError(
            f"LOSSLAB_DEVICE is {wanted!r}, but PyTorch finds no CUDA device here; unset it, or set LOSSLAB_DEVICE=cpu"
        )
    return torch.device(wanted)


def dtype() -> torch.dtype:
    """float64: every claim of the course is checked in it."""
    return torch.float64


def scale() -> str:
    """`LOSSLAB_SCALE`: "small" (the default, for two cores and 2 GB) or "full" (the papers' own sizes).

    >>> scale() in ("small", "full")
    True
    """
    wanted = os.environ.get("LOSSLAB_SCALE", "small").strip().lower()
    if wanted not in ("small", "full"):
        raise ValueError(f"LOSSLAB_SCALE is {wanted!r}; expected 'small' or 'full'")
    return wanted


def generator(seed: int, use: str = "") -> torch.Generator:
    """A seeded generator on the CPU: the same seed and the same `use` give the same numbers on every device.

    Without a `use` two draws with one seed share their numbers: weights would begin with the samples. So what the
    library draws beside somebody's data names its use, and has a sequence of its own.

    >>> torch.rand(2, generator=generator(0)).equal(torch.rand(2, generator=generator(0)))
    True
    >>> torch.rand(2, generator=generator(0)).equal(torch.rand(2, generator=generator(0, "weights")))
    False
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int; got {type(seed).__name__}")
    if use:  # 63 bits: two of the few pairs that anybody uses will not meet
        seed = int.from_bytes(hashlib.sha256(f"{use} {seed}".encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int | torch.Generator, scale: float = 1.0) -> torch.Tensor:
    """Gaussian numbers of the given shape, standard deviation `scale`, drawn on the CPU and moved.

    With the same seed a longer draw begins with the shorter one, so data and weights need different seeds.

    >>> normal(2, 3, seed=0).equal(normal(5, 3, seed=0)[:2])
    True
    """
    source = seed if isinstance(seed, torch.Generator) else generator(seed)
    count = math.prod(shape)
    # PyTorch fills blocks of 16 and redraws the last 16 of a length that is no multiple: so always draw whole blocks.
    numbers = torch.randn(-(-max(count, 1) // 16) * 16, generator=source, dtype=dtype())[:count]
    return (scale * numbers.reshape(shape)).to(device())


def uniform(*shape: int, low: float = 0.0, high: float = 1.0, seed: int | torch.Generator) -> torch.Tensor:
    """Uniform numbers in [low, high) of the given shape, drawn on the CPU and moved.

    >>> bool((uniform(5, low=2, high=3, seed=0) >= 2).all())
    True
    """
    source = seed if isinstance(seed, torch.Generator) else generator(seed)
    return (low + (high - low) * torch.rand(*shape, generator=source, dtype=dtype())).to(device())


def orthogonal(*shape: int, seed: int | torch.Generator) -> torch.Tensor:
    """Orthogonal matrices (..., n, n), drawn uniformly (Haar measure) on the CPU and moved.

    Q of a Gaussian matrix A = Q R, with the signs that make the diagonal of R positive: without them Q would depend on
    the conventions of the QR routine and not be uniform (Mezzadri 2007). With the same seed a longer draw begins with
    the shorter one. Raises ValueError when the last two sizes differ.

    >>> Q = orthogonal(5, 3, 3, seed=0)
    >>> bool((Q.mT @ Q - torch.eye(3, dtype=dtype(), device=device())).abs().max() < 1e-14)
    True
    """
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"shape is {shape}; expected (..., n, n)")
    Q, R = torch.linalg.qr(normal(*shape, seed=seed).cpu())
    return (Q * R.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).to(device())


def tensor(value, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """`value` as a finite real tensor on the device, float64 unless `dtype` says otherwise.

    Raises TypeError when `value` is no real array, ValueError when an entry is NaN or infinite; both name `name`.

    >>> tensor([1, 2], "x")
    tensor([1., 2.], dtype=torch.float64)
    >>> float(tensor(0.1, "x"))
    0.1
    >>> tensor([1.0, float("nan")], "x")
    Traceback (most recent call last):
        ...
    ValueError: x has 1 non-finite entries of 2; expected finite numbers
    """
    try:
        out = torch.as_tensor(value)
        if out.is_floating_point() and not hasattr(value, "dtype"):  # Python numbers would be rounded to float32
            out = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as wrong:
        raise TypeError(f"{name} must be an array of real numbers; got {type(value).__name__}") from wrong
    if out.is_complex():
        raise TypeError(f"{name} must be real; got dtype {out.dtype}")
    out = out.detach().to(device=device(), dtype=dtype or torch.float64)
    return finite(out, name)


def finite(value: torch.Tensor, name: str) -> torch.Tensor:
    """`value` itself; raises ValueError when an entry is NaN or infinite."""
    bad = 0 if all_finite(value) else int((~torch.isfinite(value)).sum())
    if bad:
        raise ValueError(f"{name} has {bad} non-finite entries of {value.numel()}; expected finite numbers")
    return value


def all_finite(value: torch.Tensor) -> bool:
    """Whether the sum is finite: then every entry is, in one reading. (False can also be an overflow of the sum.)"""
    return math.isfinite(value.sum().item())


def to_bytes(size: int | float | str, name: str = "memory") -> int:
    """A size in bytes: a number, or text such as "256 MB" or "2 GB".

    >>> to_bytes("256 MB")
    256000000
    """
    units = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
    try:
        if isinstance(size, str):
            number, unit = size.split()
            size = float(number) * units[unit.upper()]
        size = int(size)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{name} is {size!r}; expected a number of bytes or text such as '256 MB'") from None
    if size < 10**6:
        raise ValueError(f"{name} is {size} bytes; expected at least 1 MB")
    return size


def warm_up() -> None:
    """Call each transcendental function once on one element, and free one large array.

    The first float64 call in a fresh process with several threads can return wrong digits (PyTorch issue 188792);
    after one call on one element it does not. And the C library learns from the largest array that was freed: from
    then on it keeps memory for the next array of up to that size, instead of handing it back and having it cleared
    again page by page, which costs more than the arithmetic. The array is never touched, so it takes no memory.
    """
    one = torch.ones(1, dtype=dtype())
    for function in (torch.tanh, torch.sigmoid, torch.exp, torch.log, torch.sin, torch.cos, torch.sqrt, torch.log1p):
        function(one)
    torch.empty(31 * 2**20, dtype=torch.uint8)  # 32 MB is the most that it learns


warm_up()
