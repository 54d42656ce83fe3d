"""Steps of small networks on few multiprocessors, as CUDA graphs or in the persistent kernel, and all that they leave."""

from typing import Any, NamedTuple

import numpy as np

from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config, resolve
from ddpgd.data.mnist import Dataset
from ddpgd.run import build
from ddpgd.training.step import Step

SIDES = (9, 9)
TURNS = "ddpgd.kernels.cuda.persistent.MOST_TURNS"


class Left(NamedTuple):
    """All arrays that steps change, as bytes; what the host read of them; and launches after the first step."""

    arrays: dict[str, bytes]
    result: tuple[Any, ...]
    launches: int


def samples(number: int, sides: tuple[int, int]) -> Dataset:
    """Images without sense, and labels."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (number, sides[0] * sides[1])).astype(np.uint8)
    labels = rng.integers(0, 10, number).astype(np.uint8)
    return Dataset(images, labels, images[:0], labels[:0], sides, "")


def make_step(ops: Any, num_steps: int, sides: tuple[int, int] = SIDES, **given: Any) -> Step:
    """One rank's steps over one epoch of so many."""
    small = {"hidden": (24,), "global_batch": 40, "micro_batch": 40, "lr": 0.05, "data": "synthetic"}
    config = resolve(Config(**(small | given)), 1)
    data = samples(num_steps * (config.global_batch or 0), sides)
    step = build.sync(ops, config, data, build.grid(config, Alone()), num_steps)
    assert isinstance(step, Step)
    # All steps without the host, however long they take.
    step._lookahead.num_steps = lambda most, stop: most  # type: ignore[method-assign,assignment] # noqa: ARG005
    return step


def left(replay: str, num_steps: int = 4, precision: str = "float32", **given: Any) -> Left:
    """Runs one step, then `num_steps` without the host, and returns all that is left."""
    from ddpgd.kernels.cuda.backend import Cuda

    ops: Any = Cuda(0, precision, replay)
    step = make_step(ops, num_steps + 1, precision=precision, **given)
    step.run(0, 1, False, False)
    before = ops.num_launches
    result = step.run(1, num_steps, False, False)
    state = step.state
    arrays = {
        "params": state.params,
        "weights": state.weights,
        "control": state.control,
        "history": step._history,
        "cursor": step._cursor.cursor,
        "grads": step.exchange.result[0],
        "tail": step.exchange.result[1],
        **state.optimizer,
    }
    told = result.num_steps, result.halted, str(result.loss_sums), result.loss_scale, str(result.grad_norm)
    return Left({name: ops.to_host(array).tobytes() for name, array in arrays.items()}, told, ops.num_launches - before)
