"""`ddpgd descend`: gradient descent on a function, told as a table, a picture, an animation or CSV."""

import csv
import io
import math
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpgd.comm.agreement import on_root
from ddpgd.comm.transport import Transport
from ddpgd.config.parsing import path
from ddpgd.config.schema import Config
from ddpgd.config.validation import validate
from ddpgd.errors import InputError, one_line, shown
from ddpgd.lab import descent, functions, picture
from ddpgd.lab.descent import METHODS, MISTAKES, Descent, Method
from ddpgd.lab.functions import BUILT_IN, Function
from ddpgd.lab.scalar import draw
from ddpgd.lab.verdict import Progress
from ddpgd.optim.rules import RULES
from ddpgd.optim.schedules import SCHEDULES
from ddpgd.run.atomic import write_text
from ddpgd.run.build_parts import learning_rates, plateau
from ddpgd.run.output_files import OutputFile, check_files
from ddpgd.run.plots import picture_file

WORK_OPTIONS = (
    *("optimizer", "lr", "steps", "momentum", "weight_decay", "clip_norm", "clip_value", "schedule"),
    *(option for curve in SCHEDULES.values() for option in curve.options),
    *("warmup", "seed"),
)
"""Options of `train` that `descend` has as well."""

DEFAULTS: dict[str, Any] = {"optimizer": "sgd", "schedule": "constant", "weight_decay": 0.0, "steps": 50}
"""Their defaults, where they differ."""

_COLUMNS = ("step", "loss", "gradient_norm")
_SHOWN = 10
_MOST_STEPS = 100_000


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags that are not options of the configuration."""
    parser.add_argument(
        "function",
        nargs="?",
        help="an expression of + - * / ** and functions, whose names are params, as in '(x-3)**2'; or one of "
        f"{', '.join(BUILT_IN)}, which have a learning rate of their own for sgd; none: list them",
    )
    parser.add_argument("--from", dest="start", metavar="X,Y", help="where to start, as in --from=-1.2,1 (default: 0)")
    parser.add_argument("--method", choices=METHODS, help="compare: a method that knows second derivatives")
    parser.add_argument(
        "--tolerance", metavar="NORM", type=float, help="stop where the gradient's norm is this (default: 0)"
    )
    parser.add_argument(
        "--batch", metavar="N", type=int, help="samples in a step, of a function of data (default: all)"
    )
    parser.add_argument("--mistake", choices=tuple(MISTAKES), help="make a classic mistake, to see what it does")
    parser.add_argument("--out", metavar="FILE", type=path, help="draw the path and the loss, as PNG or SVG")
    parser.add_argument("--animate", metavar="FILE.gif", type=path, help="draw the path as it grows")
    parser.add_argument("--csv", metavar="FILE", type=path, help="write every step")
    parser.add_argument(
        "--graph", metavar="FILE.svg", type=path, help="draw how the first loss is made, and its gradients"
    )


def lines(given: Mapping[str, Any], flags: Mapping[str, Any], transport: Transport) -> list[str]:
    """Returns what to print of a descent, after writing what `flags` ask for; every rank calls it.

    Raises:
        InputError: The function, an option or a flag is wrong, or a file cannot be written.
    """
    if "function" not in flags:
        return [f"{name:18} {make().text}" for name, make in BUILT_IN.items()]
    function = _function(flags)
    config = _config(given, flags, function)
    batch = _batch(flags, function)
    if flags.get("tolerance", 0.0) < 0 or not math.isfinite(flags.get("tolerance", 0.0)):
        raise InputError(f"--tolerance {flags['tolerance']}: must be at least 0")
    on_root(transport, lambda: check_files([_FILES[name](Path(flags[name])) for name in _FILES if name in flags]))
    found = _descend(function, config, flags, batch, transport)
    on_root(transport, lambda: _write(function, found, flags))
    return list(
        map(
            one_line, [*_table(function, found), *_answer(function), f"{function.name}: {found.verdict}", *_seen(flags)]
        )
    )


def _function(flags: Mapping[str, Any]) -> Function:
    """Returns the function that is asked for, at its start."""
    mistake, name = flags.get("mistake"), flags["function"]
    if mistake == "equal-init" and name != "xor":
        raise InputError(
            "--mistake equal-init: weights of a network begin alike; type ddpgd descend xor --mistake equal-init"
        )
    function = functions.xor(equal=True) if mistake == "equal-init" else functions.find(name)
    if "start" in flags:
        _start_at(function, flags["start"])
    return function


def _start_at(function: Function, text: str) -> None:
    names = ", ".join(param.name for param in function.params)
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(function.params) or not all(map(math.isfinite, numbers)):
        example = ",".join("1" for _ in function.params)
        raise InputError(
            f"--from {shown(text)}: a number is wanted for each of {names}; type for example --from={example}"
        )
    for param, number in zip(function.params, numbers, strict=True):
        param.data = number


def _config(given: Mapping[str, Any], flags: Mapping[str, Any], function: Function) -> Config:
    config = Config(**DEFAULTS | dict(given))
    if "method" in flags and (unused := given.keys() - {"steps", "seed"}):
        raise InputError(
            f"--{min(unused).replace('_', '-')}: --method {flags['method']} finds its steps itself; drop one of the two"
        )
    if "method" in flags and (unused := {"batch", "mistake"} & flags.keys()):
        raise InputError(f"--{min(unused)}: --method {flags['method']} wants true gradients; drop one of the two")
    if companion := RULES[config.optimizer].companion:
        raise InputError(
            f"--optimizer {config.optimizer}: a point has no weight matrices; type --optimizer {companion}, its companion"
        )
    validate(replace(config, validation=1))  # a schedule may ask for evaluations: there is one in every step
    if config.steps is not None and config.steps > _MOST_STEPS:
        raise InputError(f"--steps {config.steps}: must be at most {_MOST_STEPS}")
    if config.lr is None:
        rate = function.lr if config.optimizer == "sgd" else RULES[config.optimizer].lr
        config = replace(config, lr=rate)
    return config


def _batch(flags: Mapping[str, Any], function: Function) -> int:
    batch: int = flags.get("batch", function.num_samples)
    if "batch" in flags and function.num_samples == 1:
        raise InputError(
            f"--batch: {function.name} has no data; drop it, or type for example ddpgd descend line --batch 1"
        )
    if not 1 <= batch <= function.num_samples:
        raise InputError(
            f"--batch {batch}: {function.name} has {function.num_samples} samples; type 1 to {function.num_samples}"
        )
    return batch


def _descend(function: Function, config: Config, flags: Mapping[str, Any], batch: int, transport: Transport) -> Descent:
    assert config.steps is not None, "there is a default"
    tolerance, size = flags.get("tolerance", 0.0), len(function.params)
    method = flags.get("method")
    if method == "lbfgs":
        return descent.lbfgs(function, config.steps, tolerance, transport)
    step: descent.Step
    if method == "newton":
        step = descent.newton(function, transport)
    else:
        options = {name: getattr(config, name) for name in RULES[config.optimizer].options}
        rates = learning_rates(config, config.steps)
        clips = config.clip_norm, config.clip_value
        mistake = flags.get("mistake", "")
        step = Method(config.optimizer, rates, plateau(config), size, config.weight_decay, *clips, mistake, **options)
    return descent.descend(function, step, config.steps, tolerance, batch, config.seed, transport)


def _table(function: Function, found: Descent) -> list[str]:
    """Returns the steps in lines: some of them, evenly spaced, where there are many."""
    last = len(found.path) - 1
    every = max(1, -(-last // _SHOWN))
    numbers = sorted({*range(0, last + 1, every), last})
    names = [param.name for param in function.params][:3]
    more = " ..." if len(function.params) > len(names) else ""
    head = f"{'step':>6} {'loss':>12} {'gradient':>12}   {'  '.join(f'{name:>12}' for name in names)}{more}"
    return [head, *(_row(number, found.path[number], len(names)) for number in numbers)]


def _row(number: int, one: Progress, num_params: int) -> str:
    point = "  ".join(f"{value:12.6g}" for value in one.point[:num_params])
    return f"{number:6,} {one.loss:12.6g} {one.norm:12.6g}   {point}"


def _answer(function: Function) -> list[str]:
    values = ", ".join(
        f"{param.name} {round(value, 9):.6g}" for param, value in zip(function.params, function.answer, strict=False)
    )
    return [f"closed form: {values}"] if values else []


def _seen(flags: Mapping[str, Any]) -> list[str]:
    return [f"mistake: {MISTAKES[flags['mistake']]}"] if "mistake" in flags else []


_FILES: dict[str, Callable[[Path], OutputFile]] = {
    "graph": lambda file: OutputFile("--graph", file, "the graph of a descent", 'font-size="13">', (".svg",)),
    "csv": lambda file: OutputFile("--csv", file, "the CSV of a descent", ",".join(_COLUMNS)),
    "out": lambda file: picture_file(file, "--out"),
    "animate": lambda file: picture.animation_file(file, "--animate"),
}
"""What is written, by the flag that names the file."""


def _write(function: Function, found: Descent, flags: Mapping[str, Any]) -> None:
    if "graph" in flags:
        write_text(Path(flags["graph"]), "--graph", _graph(function, found))
    if "csv" in flags:
        write_text(Path(flags["csv"]), "--csv", _as_csv(function, found.path))
    if "out" in flags:
        picture.draw(function, found, Path(flags["out"]))
    if "animate" in flags:
        picture.animate(function, found, Path(flags["animate"]))


def _graph(function: Function, found: Descent) -> str:
    """Returns the graph of the first sample's loss at the start, as SVG."""
    for param, number in zip(function.params, found.path[0].point.tolist(), strict=True):
        param.data, param.grad = number, 0.0
    loss = function.loss(0)
    loss.name = f"loss {loss.name}"
    loss.backward()
    return draw(loss)


def _as_csv(function: Function, steps: Sequence[Progress]) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow([*_COLUMNS, *(param.name for param in function.params)])
    rows.writerows([number, one.loss, one.norm, *one.point.tolist()] for number, one in enumerate(steps))
    return text.getvalue()
