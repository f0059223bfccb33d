"""MLP: shapes, the flat vector, activations, and the same outputs as torch.nn."""

import pytest
import torch
from torch import nn

from losslab import MLP, backend, data
from losslab.network import ACTIVATIONS, activation


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("widths", [(3, 1), (2, 5, 3), (4, 3, 2, 5, 1)])
def test_layers_and_flatten_are_inverse(widths, bias):
    net = MLP(widths, bias=bias)
    theta = backend.normal(6, net.M, seed=0)
    layers = net.layers(theta)
    assert [tuple(W.shape) for W, _ in layers] == [(6, o, i) for i, o in zip(widths[:-1], widths[1:], strict=True)]
    assert torch.equal(net.flatten(layers), theta)
    assert torch.equal(net.flatten(net.layers(theta[0])), theta[0])


@pytest.mark.parametrize("name, module", [("tanh", nn.Tanh), ("sigmoid", nn.Sigmoid), ("relu", nn.ReLU),
                                          ("softplus", nn.Softplus), ("identity", nn.Identity)])
def test_outputs_agree_with_torch_nn_in_its_own_parameter_order(name, module):
    net = MLP([3, 4, 5, 2], name)
    torch.manual_seed(0)
    other = nn.Sequential(nn.Linear(3, 4), module(), nn.Linear(4, 5), module(), nn.Linear(5, 2)).double()
    theta = nn.utils.parameters_to_vector(other.parameters()).detach().to(backend.device())
    x = backend.normal(7, 3, seed=1)
    assert torch.allclose(net(theta, x), other.to(x.device)(x), atol=1e-14)
    assert torch.allclose(net(torch.stack([theta, 2 * theta]), x)[0], other(x), atol=1e-14)


@pytest.mark.parametrize("which", [*ACTIVATIONS, torch.sin, lambda z: z * torch.sigmoid(z)])
def test_slope_and_bend_are_the_derivatives(which):
    sigma = activation(which)
    z = backend.normal(50, seed=2).requires_grad_(True)
    value = sigma.value(z)
    slope = sigma.slope(z, value)
    (expected,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    assert torch.allclose(slope, expected, atol=1e-13)
    bend = torch.autograd.grad(expected.sum(), z)[0] if expected.requires_grad else torch.zeros_like(z)
    assert torch.allclose(sigma.bend(z, value, slope), bend, atol=1e-13)


def test_a_batch_of_starts_begins_with_the_smaller_batch():
    net = MLP([5, 4, 1])
    assert torch.equal(net.init(3, batch=50)[:7], net.init(3, batch=7))
    assert torch.equal(net.init(3, batch=2)[0], net.init(3))


def test_init_scales_by_fan_in_and_leaves_biases_at_zero():
    net = MLP([400, 100, 1])
    (W, b), _ = net.layers(net.init(0, scale=3.0))
    assert abs(float(W.std()) - 3 / 20) < 0.003 and float(b.abs().max()) == 0


@pytest.mark.parametrize("seed", range(5))
def test_weights_do_not_begin_with_data_of_the_same_seed(seed):
    net, made = MLP([3, 40, 2]), data.gaussian(40, 3, 2, seed=seed)
    (W, _), _ = net.layers(net.init(seed))
    for x in (made.x, backend.normal(40, 3, seed=seed)):
        aligned = torch.nn.functional.cosine_similarity(W, x)  # each unit with the sample of its number
        assert abs(float(aligned.mean())) < 0.5  # equal numbers give 1; independent ones 0 with deviation 0.09


def test_modules_that_are_fully_connected_are_recognised():
    chain = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2), nn.Sigmoid())
    net = MLP.of_module(chain)
    assert net.widths == (3, 4, 4, 2) and net.activation.name == "tanh" and net.output_activation.name == "sigmoid"
    assert MLP.of_module(nn.Linear(2, 1)).widths == (2, 1)


@pytest.mark.parametrize("module", [
    nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
    nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
    nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
    nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)),
    nn.Conv1d(1, 1, 1),
])
def test_other_modules_are_not(module):
    assert MLP.of_module(module) is None


@pytest.mark.parametrize("call, error, words", [
    (lambda: MLP([3]), ValueError, r"widths is \(3,\); expected at least two positive integers"),
    (lambda: MLP([3, 0, 1]), ValueError, "widths"),
    (lambda: MLP([3, 2.5]), ValueError, "widths"),
    (lambda: MLP([3, 1], "swosh"), ValueError, "activation is 'swosh'; expected one of tanh"),
    (lambda: MLP([3, 1])(torch.zeros(4), torch.zeros(5, 2)), ValueError, r"x has shape \(5, 2\); expected \(n, 3\)"),
    (lambda: MLP([3, 1]).layers(torch.zeros(5)), ValueError, "theta has 5 entries in its last axis"),
    (lambda: MLP([3, 1]).flatten([(torch.zeros(1, 2), torch.zeros(1))]), ValueError, r"W_1 has shape \(1, 2\)"),
    (lambda: MLP([3, 1]).flatten([(torch.zeros(1, 3), None)]), ValueError, "b_1 is missing"),
    (lambda: MLP([3, 1]).flatten([]), ValueError, "layers has 0 entries"),
])
def test_bad_input_is_a_clear_error(call, error, words):
    with pytest.raises(error, match=words):
        call()
