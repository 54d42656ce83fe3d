"""The same steps in PyTorch: whole steps in float64, gradients and each update rule in float32."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import CONTROL_WORDS, TAIL_WORDS, Control, Tail
from ddpgd.model.layers import dense_layers
from ddpgd.model.network import Network
from ddpgd.optim.rules import RULES, Optimizer, Rule
from ddpgd.params import initialise
from op_laws import hyper_of

torch = pytest.importorskip("torch", reason="PyTorch, the second opinion, is not installed: pip install 'ddpgd[bench]'")

ACTIVATIONS = ("relu", "tanh", "sigmoid")
LOSSES = ("cross-entropy", "mse")
WEIGHT_DECAYS = (0.0, 0.01)
RULES_OF_PYTORCH = [rule for rule in RULES.values() if rule.pytorch]
NUM_ROWS = 50

over_networks = pytest.mark.parametrize(
    ("activation", "loss"), [(activation, loss) for activation in ACTIVATIONS for loss in LOSSES]
)
over_optimizers = pytest.mark.parametrize(
    ("rule", "weight_decay"),
    [pytest.param(rule, decay, id=f"{rule.name}-{decay}") for rule in RULES_OF_PYTORCH for decay in WEIGHT_DECAYS],
)


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> None:
    torch.set_num_threads(1)


def report(largest_error: float) -> None:
    """For `pytest -rP`."""
    print(f"largest error {largest_error:.2e}")


def torch_loss_sum(tensors: list[Any], x: Any, labels: Any, activation: str, loss: str) -> Any:
    """The loss sum of the network whose weights and biases stand in `tensors`, as PyTorch computes it."""
    for layer in range(0, len(tensors), 2):
        x = torch.addmm(tensors[layer + 1], x, tensors[layer])
        if layer + 2 < len(tensors):
            x = getattr(torch, activation)(x)
    functional = torch.nn.functional
    if loss == "cross-entropy":
        return functional.cross_entropy(x, labels, reduction="sum")
    one_hot = functional.one_hot(labels, x.shape[1]).to(x.dtype)
    return functional.mse_loss(x, one_hot, reduction="none").mean(dim=1).sum()


def torch_optimizer(rule: Rule, tensors: list[Any], weight_decay: float) -> Any:
    name = rule.pytorch.partition("(")[0]
    optimizer = partial(getattr(torch.optim, name), tensors, lr=lr(rule), weight_decay=weight_decay)
    return eval(rule.pytorch, {name: optimizer}, hyper_of(rule))


def lr(rule: Rule) -> float:
    """A rate at which a few steps change something."""
    return 2 * rule.lr


def update64(rule: Rule, params: Array, grads: Array, state: list[Array], weight_decay: float, number: int) -> None:
    """The op's own update on float64 vectors."""
    words, hyper = control(lr(rule), 1 / NUM_ROWS, number), list(hyper_of(rule).values())
    Reference(np.float64).update(rule.name, params, grads, state, words, weight_decay, hyper, params)


def control(lr: float, scale: float, number: int) -> Array:
    """The words that `decide` would leave to update `number`."""
    words = np.zeros(CONTROL_WORDS)
    words[[Control.LR, Control.SCALE, Control.APPLY, Control.UPDATE]] = lr, scale, 1, number
    words[Control.LOSS_SCALE] = 1
    return words


def network(
    activation: str, loss: str, dtype: type, hidden: tuple[int, ...] = (20, 12)
) -> tuple[Any, Array, list[Any]]:
    """A model, its params, and copies of its tensors in PyTorch."""
    model = Network(Reference(dtype), dense_layers((30, *hidden, 10), activation), loss, NUM_ROWS)
    params = initialise(model.layout, "xavier", seed=3).astype(dtype)
    return model, params, [torch.tensor(view, requires_grad=True) for view in model.layout.views(params)]


def batch(number: int, dtype: type, width: int = 30) -> tuple[Array, Array]:
    rng = np.random.default_rng(number)
    return rng.standard_normal((NUM_ROWS, width)).astype(dtype), rng.integers(0, 10, NUM_ROWS)


@over_optimizers
@over_networks
def test_whole_steps_in_float64(rule: Rule, weight_decay: float, activation: str, loss: str) -> None:
    model, params, tensors = network(activation, loss, np.float64)
    theirs = torch_optimizer(rule, tensors, weight_decay)
    grads, tails = np.zeros((1, model.layout.size)), np.zeros((1, TAIL_WORDS))
    state = [np.zeros(model.layout.size) for _ in rule.state]
    largest = 0.0
    for number in (1, 2, 3):
        x, labels = batch(number, np.float64)
        num_rows = model.set_inputs(x, labels)
        model.gradient(params, params, num_rows, NUM_ROWS, control(0, 0, 0), grads, tails)
        update64(rule, params, grads[0], state, weight_decay, number)
        theirs.zero_grad()
        loss_sum = torch_loss_sum(tensors, torch.tensor(x), torch.tensor(labels), activation, loss)
        (loss_sum / NUM_ROWS).backward()
        theirs.step()
        assert tails[0, Tail.LOSS_SUM] == pytest.approx(loss_sum.item(), rel=1e-12)
        for view, tensor in zip(model.layout.views(params), tensors, strict=True):
            largest = max(largest, float(np.abs(view - tensor.detach().numpy()).max()))
    report(largest)
    assert 0 <= largest <= 1e-10


@over_optimizers
def test_two_hundred_steps_of_one_and_three_ranks_in_float64(rule: Rule, weight_decay: float) -> None:
    """Ranks compute micro-batches of 17, 17 and 16 samples, whose sums all of them add in the same order."""
    rows = [slice(start, start + 17) for start in range(0, NUM_ROWS, 17)]

    def trained(world: Threads) -> Array:
        model, params, _ = network("tanh", "cross-entropy", np.float64)
        parts, tails = np.zeros((len(rows), model.layout.size)), np.zeros((1, TAIL_WORDS))
        state = [np.zeros(model.layout.size) for _ in rule.state]
        for number in range(1, 201):
            x, labels = batch(number, np.float64)
            for micro_batch in range(world.rank, len(rows), world.world_size):
                num_rows = model.set_inputs(x[rows[micro_batch]], labels[rows[micro_batch]])
                grads = parts[micro_batch : micro_batch + 1]
                model.gradient(params, params, num_rows, NUM_ROWS, control(0, 0, 0), grads, tails)
            world.all_gather([list(parts[rank :: world.world_size]) for rank in range(world.world_size)])
            update64(rule, params, parts[0] + parts[1] + parts[2], state, weight_decay, number)
        return params

    alone, *three = threads.run(1, trained) + threads.run(3, trained)
    assert all((params == alone).all() for params in three)
    model, _, tensors = network("tanh", "cross-entropy", np.float64)
    theirs = torch_optimizer(rule, tensors, weight_decay)
    for number in range(1, 201):
        x, labels = batch(number, np.float64)
        theirs.zero_grad()
        (torch_loss_sum(tensors, torch.tensor(x), torch.tensor(labels), "tanh", "cross-entropy") / NUM_ROWS).backward()
        theirs.step()
    ours = np.concatenate([view.ravel() for view in model.layout.views(alone)])
    wanted = np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])
    error = float(np.linalg.norm(ours - wanted) / np.linalg.norm(wanted))
    report(error)
    assert error <= 1e-6


@over_networks
@pytest.mark.parametrize("hidden", [(), (64,), (64, 32)])
def test_the_gradient_in_float32(activation: str, loss: str, hidden: tuple[int, ...]) -> None:
    model, params, tensors = network(activation, loss, np.float32, hidden)
    grads, tails = np.zeros((1, model.layout.size), np.float32), np.zeros((1, TAIL_WORDS), np.float32)
    x, labels = batch(1, np.float32)
    model.gradient(params, params, model.set_inputs(x, labels), NUM_ROWS, control(0, 0, 0), grads, tails)
    torch_loss_sum(tensors, torch.tensor(x), torch.tensor(labels), activation, loss).backward()
    ours = np.concatenate([view.ravel() for view in model.layout.views(grads[0])]).astype(np.float64)
    theirs = np.concatenate([tensor.grad.numpy().ravel() for tensor in tensors]).astype(np.float64)
    error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    report(error)
    assert error <= 1e-6


@over_optimizers
def test_each_update_rule_in_float32(rule: Rule, weight_decay: float) -> None:
    ops, rng, size = Reference(), np.random.default_rng(5), 4096
    params = rng.standard_normal(size).astype(np.float32)
    tensor = torch.tensor(params, requires_grad=True)
    ours = Optimizer(ops, rule, size, weight_decay, hyper_of(rule))
    theirs = torch_optimizer(rule, [tensor], weight_decay)
    for number in range(1, 9):
        gradient_sum = rng.standard_normal(size).astype(np.float32)
        tensor.grad = torch.tensor(gradient_sum) / 64
        theirs.step()
        ours.update(params, gradient_sum, control(lr(rule), 1 / 64, number), params)
    difference = params.astype(np.float64) - tensor.detach().numpy()
    error = float(np.linalg.norm(difference) / np.linalg.norm(params))
    report(error)
    assert error <= 1e-6
