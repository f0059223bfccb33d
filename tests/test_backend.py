"""The device, the scale, seeded numbers and the checks on input."""

import pytest
import torch

from losslab import backend


def test_the_same_seed_gives_the_same_numbers_and_longer_draws_begin_with_shorter():
    assert torch.equal(backend.normal(3, 7, seed=5), backend.normal(9, 7, seed=5)[:3])
    assert not torch.equal(backend.normal(3, 7, seed=5), backend.normal(3, 7, seed=6))


def test_numbers_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    try:
        draws = []
        for number in (1, 2):
            torch.set_num_threads(number)
            draws.append(backend.normal(1000, seed=1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*draws)


def test_cuda_that_is_not_there_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOSSLAB_DEVICE", "cuda")
    with pytest.raises(RuntimeError, match="LOSSLAB_DEVICE is 'cuda', but PyTorch finds no CUDA device"):
        backend.device()


@pytest.mark.parametrize("variable, call", [("LOSSLAB_DEVICE", backend.device), ("LOSSLAB_SCALE", backend.scale)])
def test_an_unknown_setting_names_itself_and_the_choices(monkeypatch, variable, call):
    monkeypatch.setenv(variable, "tpu")
    with pytest.raises(ValueError, match=f"{variable} is 'tpu'; expected"):
        call()


def test_without_settings_everything_is_float64_and_small(monkeypatch):
    monkeypatch.delenv("LOSSLAB_DEVICE", raising=False)
    monkeypatch.delenv("LOSSLAB_SCALE", raising=False)
    assert backend.tensor([1], "x").dtype == torch.float64
    assert backend.scale() == "small"


@pytest.mark.parametrize("value, error, words", [
    (["a"], TypeError, "x must be an array of real numbers; got list"),
    (torch.ones(2, dtype=torch.complex64), TypeError, "x must be real"),
    ([1.0, float("inf")], ValueError, "x has 1 non-finite entries of 2"),
])
def test_tensor_refuses(value, error, words):
    with pytest.raises(error, match=words):
        backend.tensor(value, "x")


@pytest.mark.parametrize("size", ["lots", "3 TB", 12, None])
def test_sizes_are_checked(size):
    with pytest.raises(ValueError, match="memory is"):
        backend.to_bytes(size)


def test_a_seed_must_be_an_integer():
    with pytest.raises(TypeError, match="seed must be an int; got float"):
        backend.normal(3, seed=1.5)
