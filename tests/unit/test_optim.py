"""Update rules: steps worked out by hand, and what every rule must keep."""

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.config.schema import OPTIONS, Config, resolve
from ddpgd.kernels.cuda import sources
from ddpgd.kernels.reference import updates
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, Control
from ddpgd.optim import rules
from ddpgd.optim.rules import ELEMENTWISE, RULES
from ddpgd.params import initialise
from oracles import bits, dense_layout

over_rules = pytest.mark.parametrize("name", RULES)


def control(lr: float, scale: float, number: int) -> NDArray[np.float64]:
    """The words that `decide` would leave to update `number`."""
    words = np.zeros(CONTROL_WORDS)
    words[[Control.LR, Control.SCALE, Control.APPLY, Control.UPDATE]] = lr, scale, 1, number
    return words


# name, weight_decay, lr, scale, params, then for each update: gradient sum -> params by hand.
STEPS = [
    # g = scale grads = [1, -2]; params -= lr g
    ("sgd", 0.0, 0.1, 0.5, [1, 2], [([2, -4], [0.9, 2.2]), ([0, 10], [0.9, 1.7])]),
    # g = scale grads + 0.5 params = [1.5, -1], then [0.425, 1.05] of decay alone
    ("sgd", 0.5, 0.1, 0.5, [1, 2], [([2, -4], [0.85, 2.1]), ([0, 0], [0.8075, 1.995])]),
    # velocity [1, -2], then 0.9 [1, -2] + [1, 0] = [1.9, -1.8]
    ("momentum", 0.0, 0.1, 0.5, [1, 2], [([2, -4], [0.9, 2.2]), ([2, 0], [0.71, 2.38])]),
    # velocity [1.5, -1], then 0.9 [1.5, -1] + 0.5 [0.85, 2.1] = [1.775, 0.15]
    ("momentum", 0.5, 0.1, 0.5, [1, 2], [([2, -4], [0.85, 2.1]), ([0, 0], [0.6725, 2.085])]),
    # velocity [1, -2]; steps of lr ([1, -2] + 0.9 velocity), then velocity [1.9, -1.8] and [1, 0] + 0.9 velocity
    ("nesterov", 0.0, 0.1, 0.5, [1, 2], [([2, -4], [0.81, 2.38]), ([2, 0], [0.539, 2.542])]),
    # first update: a step of lr against the sign of g, whatever its size
    ("adam", 0.0, 0.1, 0.5, [1, 2], [([2, -4], [0.9, 2.1])]),
    # g = 1, then -1: exp_avg / (1 - 0.81) = (0.9 0.1 - 0.1) / 0.19 = -1/19, exp_avg_sq / (1 - 0.999^2) = 1: a step of lr / 19
    ("adam", 0.0, 0.19, 1.0, [1], [([1], [0.81]), ([-1], [0.82])]),
    # g = 0 + 0.5 params: the step is of size lr again
    ("adam", 0.5, 0.1, 1.0, [2, -4], [([0, 0], [1.9, -3.9])]),
    # a step of adam and 0.1 0.5 params; then 0.1 0.5 params alone
    ("adamw", 0.5, 0.1, 1.0, [1, 2], [([2, -4], [0.85, 2.0])]),
    ("adamw", 0.5, 0.1, 1.0, [2, -4], [([0, 0], [1.9, -3.8]), ([0, 0], [1.805, -3.61])]),
    # square_avg 0.01 g^2: a step of 10 lr against the sign of g; then 0.99 0.01 + 0.01 = 0.0199
    ("rmsprop", 0.0, 0.05, 0.5, [1, 2], [([2, -4], [0.5, 2.5])]),
    ("rmsprop", 0.0, 0.05, 1.0, [1], [([1], [0.5]), ([1], [0.5 - 0.05 / 0.0199**0.5])]),
    # the sign alone; then exp_avg 0.01 [1, -2]: 0.9 0.01 - 0.1 0.05 > 0, and 0.9 (-0.02) + 0.1 0.2 > 0
    ("lion", 0.0, 0.1, 0.5, [1, 2], [([2, -4], [0.9, 2.1]), ([-0.1, 0.4], [0.8, 2.0])]),
    # 0.1 0.5 params beside it, and where there is no gradient it is all
    ("lion", 0.5, 0.1, 1.0, [1, 2], [([2, 0], [0.85, 1.9])]),
]


@pytest.mark.parametrize(("name", "weight_decay", "lr", "scale", "first", "updates"), STEPS)
def test_steps_worked_out_by_hand(
    name: str, weight_decay: float, lr: float, scale: float, first: list[float], updates: list[tuple[list, list]]
) -> None:
    params = np.array(first, np.float32)
    rule = rules.make(name, Reference(), len(params), weight_decay, momentum=0.9)
    for number, (gradient_sum, wanted) in enumerate(updates, start=1):
        rule.update(params, np.array(gradient_sum, np.float32), control(lr, scale, number), params)
        np.testing.assert_allclose(params, wanted, rtol=1e-6)


def test_elements_are_clipped_before_weight_decay_joins_them() -> None:
    """g = [0.5, -0.5, 0.2] of means [3, -4, 0.2]; weight decay 0.5 of [1, 2, 4] joins: [1, 0.5, 2.2]."""
    words = control(0.1, 0.5, 1)
    words[Control.CLIP_VALUE] = 0.5
    params = np.array([1, 2, 4], np.float32)
    rules.make("sgd", Reference(), 3, 0.5).update(params, np.array([6, -8, 0.4], np.float32), words, params)
    np.testing.assert_allclose(params, [0.9, 1.95, 3.78], rtol=1e-6)
    rules.make("sgd", Reference(), 3, 0.0).update(params, np.array([6, -8, 0.4], np.float32), words, params)
    np.testing.assert_allclose(params, [0.85, 2.0, 3.76], rtol=1e-6)


@over_rules
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_padding_stays_zero(name: str, weight_decay: float) -> None:
    layout = dense_layout((5, 3, 2))
    params = initialise(layout, "he", seed=1)
    rule = rules.make(name, Reference(), layout.size, weight_decay, momentum=0.9)
    inside = np.zeros(layout.size, bool)
    for tensor in layout.tensors:
        inside[tensor.start : tensor.start + tensor.size] = True
    assert not inside.all()
    for number in (1, 2, 3):
        grads = np.where(inside, np.float32(number), np.float32(0))
        rule.update(params, grads, control(0.1, 1 / 64, number), params)
        for vector in (params, grads, *rule.state.values()):
            assert not vector[~inside].any()
    assert params[inside].all()


@over_rules
def test_the_state_of_a_rule_is_all_that_it_remembers(name: str) -> None:
    """A second object, handed the first one's state, goes on bit for bit."""
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((6, 100)).astype(np.float32)
    first, second = (rules.make(name, Reference(), 100, 0.01, momentum=0.9) for _ in range(2))
    params = rng.standard_normal(100).astype(np.float32)
    for number in (1, 2, 3):
        first.update(params, gradients[number - 1].copy(), control(0.1, 1.0, number), params)
    resumed = params.copy()
    assert first.state.keys() == second.state.keys()
    for key, vector in first.state.items():
        second.state[key][...] = vector
    for number in (4, 5, 6):
        first.update(params, gradients[number - 1].copy(), control(0.1, 1.0, number), params)
        second.update(resumed, gradients[number - 1].copy(), control(0.1, 1.0, number), resumed)
    np.testing.assert_array_equal(params, resumed)


@over_rules
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("part", "size"), [(7, 100), (64, 64), (64, 65), (updates.PART, updates.PART + 1000)])
def test_an_update_in_parts_has_the_bits_of_a_whole_one(
    name: str, weight_decay: float, part: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for elements in (part, 2 * size):
        monkeypatch.setattr(updates, "PART", elements)
        rng, rule = np.random.default_rng(1), rules.make(name, Reference(), size, weight_decay, momentum=0.9)
        params, grads = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
        for number in (1, 2, 3):
            grads[...] = rng.standard_normal(size)
            rule.update(params, grads, control(0.1, 1 / 64, number), params)
        results.append([params, *rule.state.values()])
    for got, wanted in zip(*results, strict=True):
        np.testing.assert_array_equal(bits(got), bits(wanted))


@over_rules
def test_state_that_no_gradient_feeds_is_never_subnormal(name: str) -> None:
    """It would stay so for ever, and processors take tens of times as long with it."""
    rule, numbers, size = RULES[name], Reference(), 64 * 64
    params, grads = np.ones((64, 64), np.float32), np.ones((64, 64), np.float32)
    state = [np.zeros_like(params) for _ in rule.state]
    hyper = rules.values(rule, {option: OPTIONS[option].default for option in rule.options})
    smallest = np.finfo(np.float32).tiny
    for number in range(1, 1600):
        given = control(0.001, 1.0, number)
        if rule.companion:
            numbers.update_matrix(params, grads, state[0], given, 0.0, hyper[0], params)
        else:
            flat = [array.reshape(size) for array in (params, grads, *state)]
            numbers.update(name, flat[0], flat[1], flat[2:], given, 0.0, hyper, flat[0])
        assert all(((vector == 0) | (np.abs(vector) >= smallest)).all() for vector in state), number
        grads[:] = 0
    if name in ("momentum", "nesterov", "adam", "adamw", "muon"):
        assert not state[0].any()


def test_views_of_vectors_that_are_gone_are_never_used() -> None:
    """Vectors come and go, as in a loop over networks with one backend; new ones may lie where old ones did."""
    ops = Reference()
    for _ in range(20):
        params, grads = np.ones(100, np.float32), np.ones(100, np.float32)
        rule = rules.make("momentum", ops, 100, 0.0, momentum=0.9)
        rule.update(params, grads, control(0.5, 1.0, 1), params)
        np.testing.assert_array_equal(params, np.float32(0.5))


def test_every_rule_has_its_formulas_and_names_its_source() -> None:
    kernels = set(re.findall(r"^KERNEL\((\w+), \w+\)$", sources.joined("optimizer.cu"), re.MULTILINE))
    assert ELEMENTWISE.keys() == updates.FORMULAS.keys() == kernels
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.source
        assert rule.lr > 0
        assert set(rule.options) <= OPTIONS.keys()


@over_rules
def test_a_rule_has_its_own_default_learning_rate(name: str) -> None:
    assert resolve(Config(optimizer=name), 1).lr == RULES[name].lr
    assert resolve(Config(optimizer=name, lr=0.25), 1).lr == 0.25


@over_rules
def test_the_help_tells_the_rules(name: str) -> None:
    assert name in OPTIONS["optimizer"].metadata["choices"]
    assert name in OPTIONS["lr"].metadata["help"]
    for option in RULES[name].options:
        assert name in OPTIONS[option].metadata["help"]


def test_adam_without_a_learning_rate_uses_its_own() -> None:
    assert resolve(Config(optimizer="adam"), 1).lr == 0.001
