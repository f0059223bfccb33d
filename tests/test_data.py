"""The data sets: shapes, preprocessing as stated, one seed one experiment, errors that name the argument."""

import dataclasses
import gzip
import hashlib
import io
import struct

import numpy as np
import pytest
import torch
from sklearn import datasets

from losslab import backend, data

EVERY = {
    "iris": data.iris,
    "digits": lambda: data.digits(n=100),
    "digits, one-hot": lambda: data.digits(n=100, one_hot=True),
    "gaussian": lambda: data.gaussian(20, 3, 2, seed=1),
    "teacher": data.teacher,
    "definite": data.definite,
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())
def test_rows_are_samples_in_float64_on_the_device(make):
    made = make()
    assert made.x.shape == (made.n, made.d) and made.y.shape[0] == made.n
    for values in (made.x, made.y):
        assert values.device.type == torch.device(backend.device()).type
        assert values.dtype == (torch.int64 if values.ndim == 1 else torch.float64)
        assert torch.isfinite(values).all()
    assert made.name and made.source


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())
def test_two_calls_give_the_same_numbers(make):
    first, second = make(), make()
    assert torch.equal(first.x, second.x) and torch.equal(first.y, second.y)


def test_data_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.iris().x = 0


def test_iris_is_standardised_and_keeps_its_columns():
    flowers = data.iris()
    both = torch.cat([flowers.x, flowers.y], 1)
    assert both.mean(0).abs().max() < 1e-14
    assert (both.square().mean(0) - 1).abs().max() < 1e-12
    raw = torch.tensor(datasets.load_iris().data, dtype=torch.float64).to(both.device)
    for j in range(4):  # a standardised column is the raw one up to an increasing affine map
        assert abs(float(torch.corrcoef(torch.stack([both[:, j], raw[:, j]]))[0, 1]) - 1) < 1e-12


def test_iris_straight_line_leaves_the_known_loss():
    # R^2 of petal width on the other three features is 0.9379 in every textbook table of Iris.
    flowers = data.iris()
    fitted = flowers.x @ torch.linalg.lstsq(flowers.x, flowers.y).solution
    assert float((fitted - flowers.y).square().mean()) == pytest.approx(1 - 0.9379, abs=1e-4)


def test_digits_scalings_are_what_they_say():
    raw = torch.tensor(datasets.load_digits().data, dtype=torch.float64)
    unit, centred, standardised = (data.digits(pixels=p).x.cpu() for p in ("unit", "centred", "standardised"))
    assert torch.equal(unit, raw / 16)
    assert centred.mean(0).abs().max() < 1e-12 and abs(float(centred.square().mean()) - 1) < 1e-12
    assert torch.allclose(centred * (raw - raw.mean(0)).square().mean().sqrt(), raw - raw.mean(0), atol=1e-12)
    assert torch.allclose(standardised * (raw.std(0, correction=0) + 0.1), raw - raw.mean(0), atol=1e-12)


def test_digits_subset_is_a_subset():
    whole, part = data.digits(), data.digits(n=50)
    assert whole.n == 1797 and whole.k == 10
    assert torch.equal(part.x, whole.x[:50]) and torch.equal(part.y, whole.y[:50])


def test_digits_seed_permutes_images_with_their_labels():
    whole, mixed = data.digits(pixels="unit"), data.digits(pixels="unit", seed=3)
    assert not torch.equal(whole.y, mixed.y)
    rows = {tuple(row.tolist()): int(label) for row, label in zip(whole.x, whole.y, strict=True)}
    assert all(rows[tuple(row.tolist())] == int(label) for row, label in zip(mixed.x, mixed.y, strict=True))
    assert not torch.equal(data.digits(n=9, seed=4).x, data.digits(n=9, seed=3).x)


def test_digits_one_hot_names_the_label():
    labels, rows = data.digits(n=200), data.digits(n=200, one_hot=True)
    assert rows.y.shape == (200, 10) and torch.equal(rows.y.argmax(1), labels.y)
    assert torch.equal(rows.y.sum(1), torch.ones_like(rows.y[:, 0])) and rows.k == labels.k == 10


def test_gaussian_depends_on_the_seed_only():
    first, second = data.gaussian(400, 3, 2, seed=0), data.gaussian(400, 3, 2, seed=1)
    assert not torch.equal(first.x, second.x)
    assert (first.x.shape, first.y.shape) == ((400, 3), (400, 2))
    both = torch.cat([first.x, first.y], 1)
    assert both.mean(0).abs().max() < 0.2 and (torch.cov(both.T) - torch.eye(5).to(both)).abs().max() < 0.3


def test_teacher_is_data_p():
    curve = data.teacher()
    assert curve.n == 30 and float(curve.x[0, 0]) == -5 and float(curve.x[-1, 0]) == 5
    line = torch.cat([curve.x, torch.ones_like(curve.x)], 1)
    rest = curve.y - line @ torch.linalg.lstsq(line, curve.y).solution
    assert float(curve.y.var(correction=0)) == pytest.approx(0.5824456942, abs=5e-11)
    assert float(rest.square().mean()) == pytest.approx(0.2951801330, abs=5e-11)


@pytest.mark.parametrize("call, error, words", [
    (lambda: data.digits(n=0), ValueError, r"n must be from 1 to 1797; got 0"),
    (lambda: data.digits(n=1798), ValueError, r"n must be from 1 to 1797; got 1798"),
    (lambda: data.digits(n=10.0), TypeError, r"n must be an int; got float 10.0"),
    (lambda: data.digits(pixels="grey"), ValueError, r"pixels must be one of .*unit.*; got 'grey'"),
    (lambda: data.gaussian(5, 0, 1, seed=0), ValueError, r"d must be at least 1; got 0"),
    (lambda: data.gaussian(5, 1, True, seed=0), TypeError, r"k must be an int; got bool True"),
    (lambda: data.teacher(1), ValueError, r"n must be at least 2; got 1"),
])
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", range(5))
def test_definite_data_plant_a_critical_point(sign, seed):
    """The seven conditions, recomputed by automatic differentiation of the one-unit network."""
    draw = backend.uniform(4, seed=seed).cpu()
    theta = torch.stack([0.6 + 0.9 * draw[0], -0.8 + 1.6 * draw[1], 0.5 + 1.5 * draw[2], -1 + 2 * draw[3]])
    made = data.definite(sign, theta, size=0.1)
    x, y = made.x[:, 0].cpu(), made.y[:, 0].cpu()

    def loss(w):
        return (w[2] * torch.tanh(w[0] * x + w[1]) + w[3] - y).square().mean()

    assert torch.equal(made.theta.cpu(), theta) and float(loss(theta)) == pytest.approx(0.01, rel=1e-12)
    assert torch.func.grad(loss)(theta).norm() < 1e-14
    r, a = theta[2] * torch.tanh(theta[0] * x + theta[1]) + theta[3] - y, torch.tanh(theta[0] * x + theta[1])
    bend = r * theta[2] * -2 * a * (1 - a * a)
    moments = torch.stack([bend.sum(), (bend * x).sum(), (bend * x * x).sum()])
    assert sign * moments[0] > 1e-4 and abs(moments[1]) < 1e-12 and abs(moments[2] - moments[0]) < 1e-12


def test_definite_data_are_those_of_the_book():
    made = data.definite(+1)
    assert made.theta.tolist() == [1.0, 0.3, 1.0, 0.2] and (made.n, made.d, made.k) == (12, 1, 1)
    assert made.x[[0, -1], 0].tolist() == [-3.0, 3.0] and "B+" in made.name and "B-" in data.definite(-1).name


@pytest.mark.parametrize("call, words", [
    (lambda: data.definite(0), "sign must be 1 or -1; got 0"),
    (lambda: data.definite(1, size=0.0), "size must be positive"),
    (lambda: data.definite(1, n=7), "n must be at least 8; got 7"),
    (lambda: data.definite(1, theta=(1.0, 0.0, 0.0, 0.0)), "with w and v not 0"),
    (lambda: data.definite(1, theta=(1.0, 0.0, 1.0)), "theta must be"),
    (lambda: data.definite(1, theta=(40.0, 300.0, 1.0, 0.0)), "leaves no such residual"),
])
def test_definite_data_refuse_what_cannot_be(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---- MNIST, from tiny files of our own

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
PIXELS = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3) * 8
DIGITS = np.array([3, 9, 0, 3, 7], np.uint8)


def idx(values):
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("LOSSLAB_MNIST", raising=False)
    monkeypatch.setattr(data.urllib.request, "urlopen", lambda *a, **k: pytest.fail("nothing may be downloaded"))
    (tmp_path / IMAGES).write_bytes(idx(PIXELS))
    (tmp_path / (LABELS + ".gz")).write_bytes(gzip.compress(idx(DIGITS)))
    return tmp_path


def test_mnist_reads_packed_and_unpacked_files_in_their_order(folder, monkeypatch):
    made = data.mnist(folder=folder)
    assert made.x.dtype == torch.float64 and made.y.dtype == torch.int64
    assert torch.equal(made.x.cpu() * 255, torch.tensor(PIXELS.reshape(5, 6), dtype=torch.float64))
    assert made.y.tolist() == DIGITS.tolist() and "MNIST" in made.name and made.source
    assert torch.equal(data.mnist(folder=str(folder), n=2).x, made.x[:2])
    one_hot = data.mnist(folder=folder, one_hot=True).y
    assert one_hot.shape == (5, 10) and one_hot.argmax(1).tolist() == DIGITS.tolist() and float(one_hot.sum()) == 5
    mixed = data.mnist(folder=folder, seed=1)
    rows = {tuple(row.tolist()): int(label) for row, label in zip(made.x, made.y, strict=True)}
    assert not torch.equal(mixed.y, made.y)
    assert all(rows[tuple(row.tolist())] == int(label) for row, label in zip(mixed.x, mixed.y, strict=True))
    assert torch.equal(data.mnist(folder=folder, seed=1, n=3).x, mixed.x[:3])
    monkeypatch.setenv("LOSSLAB_MNIST", str(folder))
    assert torch.equal(data.mnist().x, made.x)
    with pytest.raises(FileNotFoundError, match="there is no folder"):  # the argument goes before the variable
        data.mnist(folder=folder / "none")


@pytest.mark.parametrize("name, content, words", [
    (IMAGES, idx(PIXELS)[:-1], "29 entries; expected 5 x 2 x 3"),
    (IMAGES, idx(PIXELS) + b"0", "31 entries"),
    (IMAGES, idx(PIXELS)[:9], "ends after 9 bytes"),
    (IMAGES, b"", "begins with ; expected 00 00 08 03"),
    (IMAGES, idx(DIGITS), "begins with 00 00 08 01; expected 00 00 08 03"),
    (IMAGES, b"<html>", "begins with 3c 68 74 6d"),
    (IMAGES, gzip.compress(idx(PIXELS))[:-12], "damaged gzip"),
    (IMAGES, b"\x1f\x8b" + b"0" * 30, "damaged gzip"),
    (IMAGES, idx(PIXELS[:4]), "has 4 images, .* has 5 labels"),
    (LABELS, idx(DIGITS + 1), "has 5 labels, the largest 10; expected labels from 0 to 9"),
# A gzip holds the clock: named by its bytes, a test would have another name in every worker.
], ids=lambda given: f"{len(given)} bytes" if isinstance(given, bytes) else None)
def test_mnist_refuses_damaged_files(folder, name, content, words):
    (folder / name).write_bytes(content)  # an unpacked file goes before a packed one
    with pytest.raises(ValueError, match=words):
        data.mnist(folder=folder)


def test_mnist_refuses_files_without_images(folder):
    (folder / IMAGES).write_bytes(idx(PIXELS[:0]))
    (folder / LABELS).write_bytes(idx(DIGITS[:0]))
    with pytest.raises(ValueError, match="has 0 labels"):
        data.mnist(folder=folder)


def test_mnist_says_what_to_do_where_there_are_no_files(folder):
    with pytest.raises(FileNotFoundError, match="no folder was given. Give folder=..., or set LOSSLAB_MNIST"):
        data.mnist()
    with pytest.raises(FileNotFoundError, match="no folder was given"):  # nowhere to keep what would come
        data.mnist(download=True)
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"):
        data.mnist("test", folder=folder)
    (folder / (LABELS + ".gz")).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {LABELS}"):
        data.mnist(folder=folder)
    with pytest.raises(ValueError, match="part must be 'train' or 'test'; got 'all'"):
        data.mnist("all", folder=folder)
    with pytest.raises(ValueError, match="n must be from 1 to 5"):
        (folder / LABELS).write_bytes(idx(DIGITS))
        data.mnist(folder=folder, n=6)


def test_mnist_downloads_only_what_is_missing_and_only_when_asked(folder, monkeypatch):
    packed, asked = gzip.compress(idx(PIXELS)), []

    def answer(address, timeout):
        asked.append(address)
        return io.BytesIO(packed)

    (folder / IMAGES).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {IMAGES}"):
        data.mnist(folder=folder)  # not asked
    monkeypatch.setattr(data.urllib.request, "urlopen", answer)
    with pytest.raises(ValueError, match="has the MD5 sum"):  # something else than what was published
        data.mnist(folder=folder, download=True)
    assert [path.name for path in folder.iterdir()] == [LABELS + ".gz"]  # and it is not kept
    sums = {"train": ((IMAGES, hashlib.md5(packed).hexdigest()), data.MNIST["train"][1])}
    monkeypatch.setattr(data, "MNIST", data.MNIST | sums)
    assert data.mnist(folder=folder, download=True).n == 5
    assert asked == [data.MIRROR + IMAGES + ".gz"] * 2
    assert data.mnist(folder=folder, download=True).n == 5 and len(asked) == 2  # it is there now

    def no_network(address, timeout):
        raise OSError("no network")

    monkeypatch.setattr(data.urllib.request, "urlopen", no_network)
    with pytest.raises(OSError, match="could not be downloaded .no network.; fetch the file by other means"):
        data.mnist("test", folder=folder, download=True)
