"""Cuts against direct evaluation, and the Lanczos method against the whole spectrum."""

import pytest
import torch

from losslab import MLP, Landscape, backend
from losslab.slices import line, plane
from losslab.spectrum import eigenvalues, top_eigenvalues


def digits_like(widths=(8, 12, 3), n=60):
    return Landscape(MLP(widths), backend.normal(n, widths[0], seed=0), torch.arange(n) % widths[-1], "cross_entropy")


@pytest.mark.parametrize("widths", [(8, 12, 3), (8, 3), (8, 5, 4, 3)])
def test_a_plane_is_the_loss_at_its_points_row_by_row(widths):
    landscape = digits_like(widths)
    origin, u, v = backend.normal(3, landscape.M, seed=1)
    s, t = torch.linspace(-1, 1, 7), torch.linspace(-0.5, 2, 5)
    values = plane(landscape, origin, u, v, s, t)
    assert values.shape == (7, 5)
    for i, a in enumerate(s.double()):
        for j, b in enumerate(t.double()):
            assert abs(float(values[i, j] - landscape.value(origin + a * u + b * v))) < 1e-12


def test_a_line_is_the_loss_at_its_points():
    landscape = digits_like()
    a, b = backend.normal(2, landscape.M, seed=1)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    expected = landscape.value(a + t[:, None].to(a) * (b - a))
    assert torch.allclose(line(landscape, a, b - a, t), expected, atol=1e-13)


@pytest.mark.parametrize("seed", range(10))
def test_top_eigenvalues_meet_their_stated_error(seed):
    landscape = digits_like()
    theta = landscape.network.init(seed, scale=2.0)
    exact = eigenvalues(landscape, theta).flip(0)[:6]
    top = top_eigenvalues(landscape, theta, k=6, tol=1e-5, seed=seed)
    rounding = 1e-13 * float(exact[0])
    assert bool(((top.eigenvalues - exact).abs() <= top.error + rounding).all())
    assert float(top.error.max()) <= 1e-5 * float(exact[-1])
    assert top.products < landscape.M
    Hv = landscape.hvp(theta, top.eigenvectors)
    assert float((Hv - top.eigenvalues[:, None] * top.eigenvectors).norm(dim=1).max()) < 0.01 * float(exact[-1])


def test_the_whole_spectrum_is_reached_when_all_is_asked_for():
    landscape = digits_like((2, 2), 10)
    theta = landscape.network.init(0)
    assert torch.allclose(top_eigenvalues(landscape, theta, k=2, tol=1e-12).eigenvalues,
                          eigenvalues(landscape, theta).flip(0)[:2], atol=1e-10)


def test_too_few_products_and_bad_input_are_clear_errors():
    landscape = digits_like()
    theta = landscape.network.init(0)
    with pytest.raises(RuntimeError, match="Lanczos made 8 products"):
        top_eigenvalues(landscape, theta, k=6, tol=1e-10, max_products=8)
    with pytest.raises(ValueError, match="k is 0; expected 1 to M"):
        top_eigenvalues(landscape, theta, k=0)
    with pytest.raises(ValueError, match=r"t has shape \(\); expected a list"):
        line(landscape, theta, theta, 1.0)
    with pytest.raises(ValueError, match="origin, directions, coordinates have shapes"):
        line(landscape, theta[None], theta, [0.0])
