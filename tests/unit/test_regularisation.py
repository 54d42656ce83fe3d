"""Regularisation: steps are those of the formulas; draws of dropout are independent; norms stay below the largest."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config, resolve
from ddpgd.errors import Interrupted
from ddpgd.kernels.dropout import Dropout, Rows
from ddpgd.kernels.philox import Purpose, sample_words
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, CURSOR_WORDS, TAIL_WORDS, Control, Cursor, Tail
from ddpgd.model.layers import Mode, dense_layers, network_layout
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD, Network
from ddpgd.run import build, checkpoint_search, resharding
from ddpgd.training.step import Step
from ddpgd.training.stopping import StopRequest
from runs import digits, train

Array = NDArray[Any]

NUM_SAMPLES, NUM_UNITS = 200, 500


def left(probability: float, seed: int = 1, layer: int = 1, epoch: int = 0, first: int = 0, unit: int = 0) -> Array:
    """Returns which of NUM_UNITS units from `unit` on are kept of samples `first` and later."""
    cursor = np.zeros(CURSOR_WORDS, np.int64)
    cursor[Cursor.FIRST], cursor[Cursor.EPOCH] = first - 3, epoch
    x = np.ones((NUM_SAMPLES, NUM_UNITS), np.float32)
    rows = Rows(np.arange(1000), cursor, 3)
    Reference().dropout(x, rows, Dropout(seed, layer, probability), unit, x)
    return x > 0


@pytest.mark.parametrize("probability", [0.01, 0.2, 0.5, 0.9])
def test_the_share_of_dropped_units_is_the_probability(probability: float) -> None:
    count = NUM_SAMPLES * NUM_UNITS
    sigma = np.sqrt(probability * (1 - probability) / count)
    assert abs(1 - left(probability).mean() - probability) < 5 * sigma
    of_units, of_samples = 1 - left(probability).mean(axis=0), 1 - left(probability).mean(axis=1)
    for shares, number in ((of_units, NUM_SAMPLES), (of_samples, NUM_UNITS)):
        assert np.abs(shares - probability).max() < 5.5 * np.sqrt(probability * (1 - probability) / number) + 1 / number


OTHERS: list[dict[str, Any]] = [
    *(
        {"seed": 2},
        {"layer": 2},
        {"epoch": 1},
        {"epoch": 2},
        {"first": NUM_SAMPLES},
        {"first": 3, "unit": 1},
        {"unit": 7},
    ),
    {"unit": NUM_UNITS},
]


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations([{}, *OTHERS], 2)], ids=str)
def test_masks_of_other_draws_are_independent(one: dict[str, Any], other: dict[str, Any]) -> None:
    agree, count = left(0.3, **one) == left(0.3, **other), NUM_SAMPLES * NUM_UNITS
    wanted = 0.3**2 + 0.7**2
    assert abs(agree.mean() - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / count)


def test_a_mask_is_a_function_of_the_sample_and_unit_alone() -> None:
    whole = left(0.4)
    np.testing.assert_array_equal(left(0.4, first=50)[:-50], whole[50:])
    np.testing.assert_array_equal(left(0.4, unit=37)[:, :-37], whole[:, 37:])


def dropping(sizes: tuple[int, ...], activation: str, dtype: type = np.float64) -> tuple[Network, Network, Array]:
    """Returns a network with dropout of pixels and hidden units, the same without, and params."""
    dropouts = [Dropout(5, layer, 0.25) for layer in range(1, len(sizes))]
    ops, plain = Reference(dtype), Network(Reference(dtype), dense_layers(sizes, activation), "cross-entropy", 9)
    params = np.zeros(plain.layout.size, dtype)
    for view in plain.layout.views(params):
        view[...] = np.random.default_rng(2).standard_normal(view.shape) * 0.7
    return Network(ops, dense_layers(sizes, activation, dropouts), "cross-entropy", 9), plain, params


def load(network: Network, epoch: int = 3) -> int:
    rng = np.random.default_rng(4)
    images, labels = rng.integers(0, 256, (40, 6), dtype=np.uint8), rng.integers(0, 4, 40, dtype=np.uint8)
    cursor = np.zeros(CURSOR_WORDS, np.int64)
    cursor[Cursor.EPOCH] = epoch
    network.load(images, labels, rng.permutation(40), cursor, 2, 9)
    return 9


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("hidden", [(), (5,), (5, 7)])
def test_the_gradient_equals_finite_differences_with_the_mask_fixed(hidden: tuple[int, ...], activation: str) -> None:
    network, _, params = dropping((6, *hidden, 4), activation)
    num_rows = load(network)
    grads, tails, control = np.zeros((1, network.layout.size)), np.zeros((1, TAIL_WORDS)), np.zeros(CONTROL_WORDS)
    control[Control.LOSS_SCALE] = 1
    network.gradient(params, params, num_rows, 9, control, grads, tails)

    def loss_sum() -> float:
        network.forward(params, params, num_rows, 9, Mode.TRAINING)
        network.loss(num_rows, 9, control, tails, Mode.TRAINING)
        return float(tails[0, Tail.LOSS_SUM])

    numeric = np.zeros_like(params)
    for tensor in network.layout.tensors:
        for place in range(tensor.start, tensor.start + tensor.size):
            before = params[place]
            params[place] = before + 1e-5
            above = loss_sum()
            params[place] = before - 1e-5
            numeric[place] = (above - loss_sum()) / 2e-5
            params[place] = before
    assert np.abs(grads).max() > 0.1
    np.testing.assert_allclose(grads[0], numeric, rtol=1e-7, atol=1e-8)


def test_evaluations_drop_nothing() -> None:
    network, plain, params = dropping((6, 5, 4), "relu")
    for one in (network, plain):
        load(one)
    wanted = plain.forward(params, params, 9, 9)
    np.testing.assert_array_equal(network.forward(params, params, 9, 9, Mode.EVALUATION), wanted)
    assert not np.array_equal(network.forward(params, params, 9, 9, Mode.TRAINING), wanted)


def by_hand(config: Config, step: Step, num_steps: int) -> list[Array]:
    """Returns the tensors after steps of plain SGD, in float64, from the papers' formulas."""
    data, batches = digits(), step.batches
    layout = step.passes.network.layout
    weight1, bias1, weight2, bias2 = (np.array(view, np.float64) for view in layout.views(step.state.params))
    for number in range(num_steps):
        epoch, count = batches.epoch(number), batches.num_micro_batches(number)
        samples = np.concatenate([batches.indices(number, micro_batch) for micro_batch in range(count)])
        drop = [
            factors(config, epoch, samples, *layer)
            for layer in ((1, 784, config.input_dropout), (2, 16, config.dropout))
        ]
        x = (data.train_images[samples] / 255.0 - PIXEL_MEAN) / PIXEL_STD * drop[0]
        hidden = np.maximum(x @ weight1 + bias1, 0)
        logits = hidden * drop[1] @ weight2 + bias2
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        target = (1 - config.label_smoothing) * np.eye(10)[data.train_labels[samples]] + config.label_smoothing / 10
        dlogits = (softmax - target) / len(samples)
        dhidden = dlogits @ weight2.T * drop[1] * (hidden > 0)
        weight2 -= 0.1 * ((hidden * drop[1]).T @ dlogits)
        bias2 -= 0.1 * dlogits.sum(axis=0)
        weight1 -= 0.1 * (x.T @ dhidden)
        bias1 -= 0.1 * dhidden.sum(axis=0)
        if config.max_norm:
            weight1 *= np.minimum(1, config.max_norm / np.linalg.norm(weight1, axis=0))
    return [weight1, bias1, weight2, bias2]


def factors(config: Config, epoch: int, samples: Array, layer: int, width: int, probability: float) -> Array:
    words = sample_words(config.seed, Purpose.DROPOUT, epoch, samples, width // 4, layer)
    draws = np.stack([words >> np.uint64(16 * lane) & np.uint64(0xFFFF) for lane in range(4)], axis=2)
    kept = draws.reshape(len(samples), width) >= round(probability * 65536)
    return kept / (1 - round(probability * 65536) / 65536)


REGULARISED: dict[str, Any] = {"dropout": 0.5, "input_dropout": 0.2, "label_smoothing": 0.1, "max_norm": 0.8}


@pytest.mark.parametrize("options", [{name: value} for name, value in REGULARISED.items()] + [REGULARISED], ids=str)
@pytest.mark.usefixtures("few_digits")
def test_three_steps_are_those_of_the_formulas(options: dict[str, Any]) -> None:
    given = {"hidden": (16,), "optimizer": "sgd", "lr": 0.1, "schedule": "constant", "weight_decay": 0.0, "seed": 3}
    config = resolve(Config(data="synthetic", global_batch=50, micro_batch=16, **given, **options), 1)
    step = build.sync(Reference(), config, digits(), build.grid(config, Alone()), 3)
    assert isinstance(step, Step)
    wanted = by_hand(config, step, 3)
    for number in range(3):
        step.run(number, 1, False, False)
    for view, tensor in zip(step.passes.network.layout.views(step.state.params), wanted, strict=True):
        np.testing.assert_allclose(view, tensor, rtol=1e-4, atol=2e-6)


SYNCS: dict[str, dict[str, Any]] = {
    "every-step": {},
    "local": {"sync": "local", "local_steps": 3},
    "federated": {"sync": "federated", "global_batch": None, "clients": 6, "client_fraction": 0.5, "local_epochs": 1},
}


@pytest.mark.parametrize(("sync", "before", "after"), [("every-step", 3, 2), ("local", 2, 2), ("federated", 3, 2)])
@pytest.mark.usefixtures("few_digits")
def test_a_run_that_is_stopped_goes_on_elsewhere(
    sync: str, before: int, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SYNCS[sync] | REGULARISED | {"steps": 12}
    whole = train(tmp_path / "whole", after, **given)
    asked = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__bool__", lambda _: next(asked) == 4)
        with pytest.raises(Interrupted):
            train(tmp_path / "cut", before, **given)
    assert 0 < checkpoint_search.find(tmp_path / "cut", print)[1].counters["step"] < 12
    assert train(tmp_path / "cut", after, resume="")["params_sha256"] == whole["params_sha256"]


@pytest.mark.parametrize("option", [{"dropout": 0.5}, {"input_dropout": 0.2}])
@pytest.mark.usefixtures("few_digits")
def test_another_seed_or_probability_has_other_bits(option: dict[str, float], tmp_path: Path) -> None:
    half = {name: value / 2 for name, value in option.items()}
    runs = [train(tmp_path / str(number), **given) for number, given in enumerate(({}, option, half))]
    assert len({run["params_sha256"] for run in runs}) == 3


@pytest.mark.parametrize("sync", SYNCS)
@pytest.mark.usefixtures("few_digits")
def test_no_hidden_unit_has_a_larger_norm_than_the_largest(sync: str, tmp_path: Path) -> None:
    """The last layer has no limit."""
    norms = []
    for name, limit in (("limited", 0.5), ("free", 0.0)):
        train(tmp_path / name, 2, **SYNCS[sync], hidden=(20, 15), steps=4, max_norm=limit)
        saved = checkpoint_search.find(tmp_path / name, print)[1]
        layout = network_layout(dense_layers((784, 20, 15, 10), "relu"))
        weights = layout.views(resharding.params(Alone(), layout, saved.arrays))[::2]
        norms.append([np.linalg.norm(weight, axis=0).max() for weight in weights])
    assert max(norms[0][:2]) <= 0.5 * (1 + 1e-6)
    assert min(norms[1][:2]) > 0.5
    assert norms[0][2] > 0.5
