"""Short runs on a few drawn digits, cut over any number of threads, and what they left behind."""

import json
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Alone
from ddpgd.data import synthetic
from ddpgd.data.mnist import Dataset
from ddpgd.run import starting
from ddpgd.training import evaluate
from ddpgd.training.stopping import StopRequest

Record = dict[str, Any]

OF_THE_MACHINE = {"time", "train_s", "samples_per_s", "wire_bytes", "wire_compression"}
make_digits = synthetic.make
SMALL_ROWS, SMALL_SHAPE = 32, (10, 10)


@cache
def digits(evaluate_rows: int = evaluate.EVALUATE_ROWS) -> Dataset:
    """Few, and of ragged number: steps, micro-batches and evaluations of so many rows all end in shorter ones."""
    return make_digits(num_train=330, num_test=2 * evaluate_rows + 77 * evaluate_rows // 512)


@cache
def small_digits() -> Dataset:
    """`digits` with every third row and column, and few to evaluate at a time."""
    whole = digits(SMALL_ROWS)
    train_images, test_images = (
        np.ascontiguousarray(images.reshape(-1, *whole.image_shape)[:, ::3, ::3]).reshape(len(images), -1)
        for images in (whole.train_images, whole.test_images)
    )
    return replace(whole, train_images=train_images, test_images=test_images, image_shape=SMALL_SHAPE)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes bytes as a file of the format of MNIST."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_small_digits(folder: Path) -> None:
    """Writes `small_digits` as files, for runs in processes of their own."""
    data = small_digits()
    parts = {"train": (data.train_images, data.train_labels), "t10k": (data.test_images, data.test_labels)}
    for name, (images, labels) in parts.items():
        write_idx(folder / f"{name}-images-idx3-ubyte", images.reshape(-1, *SMALL_SHAPE))
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels)


def train_on_small_digits(put: Callable[[Any, str, Any], None]) -> None:
    """Lets runs take `small_digits`: an emulated GPU takes long for each pixel. `put`: setattr, or like it."""
    put(evaluate, "EVALUATE_ROWS", SMALL_ROWS)
    put(synthetic, "make", small_digits)


def train(folder: Path, world_size: int = 1, **given: Any) -> Record:
    """A run of `ddpgd train` in `folder`, on that many threads; few small steps unless `given` says otherwise."""
    small = {"data": "synthetic", "hidden": (12,), "log_every": 1, "quiet": True, "run_dir": str(folder)}
    if "resume" not in given:
        small |= {"global_batch": 50, "micro_batch": 7, "lr": 0.05, "steps": 9, "evaluate_every": 4}
    ranks = {} if world_size == 1 else {"transport": "threads", "ranks": world_size}
    return starting.start_run(small | ranks | given, Alone(), Launch("", 0, 1, 0), StopRequest())


def stopping_at(call: int, here: bool = True) -> Callable[[StopRequest], bool]:
    """Returns what to put in place of `StopRequest.__bool__`: true at that call of the training loop, from 0, if `here`.

    A watchdog, which asks too, from a thread of its own whenever it looks, is not counted.
    """
    calls = count()

    def asked(_request: StopRequest) -> bool:
        return threading.current_thread() is threading.main_thread() and next(calls) == call and here

    return asked


def records(folder: Path) -> list[Record]:
    """metrics.jsonl but for what depends on the machine and the number of ranks; of a run that goes on, its whole lines."""
    lines = (folder / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in OF_THE_MACHINE} for line in lines]
