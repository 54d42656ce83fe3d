"""The commands' arguments: flags, most of them generated from the fields of the configuration, and their values."""

import argparse
from collections.abc import Collection, Container, Iterable, Mapping
from importlib import import_module
from typing import Any, NoReturn

from ddpgd.config.parsing import coerce, did_you_mean, path
from ddpgd.config.schema import MUTUALLY_EXCLUSIVE, OPTIONS, flag
from ddpgd.config.toml_file import read_toml
from ddpgd.config.validation import check_rule_has
from ddpgd.data.augmentations import AUGMENT_OPTIONS
from ddpgd.errors import DdpgdError, InputError
from ddpgd.run.report import VERSION

_COMMANDS = {
    "train": (
        "train a network, on all ranks that mpirun started",
        "mpirun -n 2 ddpgd train --hidden 512,512 --optimizer adam --lr 0.001 --epochs 5",
    ),
    "evaluate": (
        "compute test loss and accuracy of a checkpoint, on all ranks that mpirun started",
        "ddpgd evaluate runs/first/checkpoints/latest",
    ),
    "predict": (
        "say which digit, or class of its data, a checkpoint sees in each picture",
        "ddpgd predict runs/first/checkpoints/latest seven.png",
    ),
    "data": (
        "fetch, verify and report the data, how --sync federated divides them among clients, and what --augment makes of them",
        "ddpgd data --partition shards:2 --clients 100 --out partition.png",
    ),
    "compare": (
        "find the first step and layer at which two runs differ",
        "ddpgd compare runs/first runs/second",
    ),
    "doctor": (
        "check the ranks that mpirun started; each finding says what to type",
        "mpirun -n 2 ddpgd doctor",
    ),
    "plot": (
        "draw loss, accuracy, learning rate, gradient norm and throughput of runs",
        "ddpgd plot runs/first runs/second --out runs.png",
    ),
    "runs": ("list runs: what they are, how far they came, what came of them", "ddpgd runs --sort accuracy"),
    "report": (
        "write the results of a run as one page: curves, confusion matrix, mistakes, weights; or compare several runs",
        "ddpgd report runs/first",
    ),
    "sweep": (
        "train a grid or random draws of options, one run on each group of ranks, and rank them",
        "mpirun -n 4 ddpgd sweep configs/sweep.toml --out sweep",
    ),
    "plan": (
        "predict step time and efficiency on any number of ranks, and suggest improvements",
        "mpirun -n 2 ddpgd plan --measure --ranks 8,64,512 --ranks-per-node 8 --link 100Gbit",
    ),
    "scaling": ("measure strong and weak scaling, and write a report", "ddpgd scaling --out scaling"),
    "profile": (
        "time the operations of a step on one rank, beside this machine's rate of matrix products",
        "ddpgd profile --hidden 512,512 --micro-batch 128",
    ),
    "descend": (
        "descend a function of a few params, and show the path",
        "ddpgd descend '(x-3)**2' --from 0 --lr 0.1 --steps 50",
    ),
    "gradcheck": (
        "compare a network's gradients with finite differences, layer by layer",
        "ddpgd gradcheck --hidden 512,512 --activation tanh",
    ),
    "lr-find": (
        "suggest a learning rate, by a short run whose rate grows",
        "ddpgd lr-find --hidden 512,512 --out lr.png",
    ),
}
"""Description and example of each command."""

_OPTIONS: dict[str, Collection[str]] = {
    "train": OPTIONS,
    "doctor": ("tensor", "pipeline"),
    "data": (*AUGMENT_OPTIONS, "partition", "clients", "seed"),
}
"""The commands that have options of the configuration, and which."""

_MODULES = {
    "plan": "ddpgd.scaling.plan",
    "scaling": "ddpgd.scaling.command",
    "profile": "ddpgd.scaling.profile",
    "runs": "ddpgd.results.listing",
    "sweep": "ddpgd.results.sweep.command",
    "report": "ddpgd.results.report",
    "descend": "ddpgd.lab.command",
    "gradcheck": "ddpgd.lab.gradcheck",
    "lr-find": "ddpgd.lab.lr_find",
}
"""Modules that add the flags of a command themselves, and name its options of the configuration in WORK_OPTIONS, and in
DEFAULTS those that begin with another value. Each is imported for its command alone: every rank of a run would wait for the
others."""


class _Shown(DdpgdError):
    """Help was asked for and has been printed."""

    exit_code = 0


class _Parser(argparse.ArgumentParser):
    """argparse that says in one line what is wrong, as an InputError."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` shows how")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:  # noqa: ARG002
        raise _Shown


def parse(arguments: list[str]) -> dict[str, Any]:
    """Returns "command", the values of its flags by name, and as "given" the options of the configuration, coerced.

    Raises:
        InputError: An argument is unknown, is missing or has a wrong value.
    """
    parser, commands = make_parser(arguments)
    parsed, unknown = parser.parse_known_args(arguments)
    if parsed.command is None:
        raise InputError(f"type a command: ddpgd {'|'.join(commands)}; `ddpgd --help` shows them")
    if unknown:
        known = [name for action in commands[parsed.command]._actions for name in action.option_strings]
        name = unknown[0].partition("=")[0]
        near = did_you_mean(name, known)
        raise InputError(
            f"{name}: ddpgd {parsed.command} has no such argument{near}; `ddpgd {parsed.command} --help` lists the flags"
        )
    values = {name: value for name, value in vars(parsed).items() if value is not None}
    if parsed.command == "scaling":
        return values | {"arguments": arguments}
    options = _options(parsed.command)
    if not options:
        return values
    given = _coerced(values, options)
    file = read_toml(values["config"]) if parsed.command == "train" and "config" in values else {}
    together = _without_rivals(file, given) | given
    defaults = _defaults(parsed.command) | together
    check_rule_has(defaults.get("optimizer", OPTIONS["optimizer"].default), given)
    return values | {"given": together}


def make_parser(wanted: Container[str] = _COMMANDS) -> tuple[_Parser, dict[str, _Parser]]:
    """Returns the parser of all arguments, and those of the commands by name.

    `wanted`: words among which those of commands are whose flags matter; others may lack theirs.
    """
    parser = _Parser(
        prog="ddpgd",
        description="Data-parallel gradient descent: the same bits on any number of ranks.",
        epilog="`ddpgd COMMAND --help` shows a command's flags and an example.",
    )
    parser.add_argument("--version", action="version", version=f"ddpgd {VERSION}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    commands = {
        name: subparsers.add_parser(name, help=text, description=text, epilog=f"example:\n  {example}")
        for name, (text, example) in _COMMANDS.items()
    }
    _add_own_flags(commands)
    for name in commands:
        if name in wanted:
            if name in _MODULES:
                import_module(_MODULES[name]).add_flags(commands[name])
            _add_options(commands[name], _options(name), _defaults(name))
    return parser, commands


def _defaults(command: str) -> dict[str, Any]:
    """Returns the defaults of a command's options that are not those of the configuration."""
    defaults: dict[str, Any] = getattr(import_module(_MODULES[command]), "DEFAULTS", {}) if command in _MODULES else {}
    return defaults


def _options(command: str) -> Collection[str]:
    """Returns the options of the configuration that a command has."""
    if command in _MODULES:
        options: Collection[str] = import_module(_MODULES[command]).WORK_OPTIONS
        return options
    return _OPTIONS.get(command, ())


def _add_own_flags(commands: dict[str, _Parser]) -> None:
    """Adds the arguments that are not options of the configuration."""
    configs = {
        "train": "options by name, as in a run's config.toml; flags win",
        "doctor": "check that this file is the same on all machines, and the grid that it asks for",
    }
    for name, text in configs.items():
        commands[name].add_argument("--config", metavar="FILE.toml", type=path, help=text)
    for name in ("evaluate", "data", "doctor"):
        commands[name].add_argument("--data", type=path, help=OPTIONS["data"].metadata["help"])
    for name in ("evaluate", "predict"):
        commands[name].add_argument(
            "checkpoint", metavar="CKPT", type=path, help="a checkpoint, or a run folder (its latest)"
        )
    kinds = "PNG, JPEG, PGM, BMP, GIF, TIFF or WebP of one digit, of any size, dark or light"
    commands["predict"].add_argument("images", metavar="IMAGE", nargs="+", type=path, help=kinds)
    commands["compare"].add_argument("runs", metavar="RUN", nargs=2, type=path, help="a run folder")
    commands["data"].add_argument(
        "--out",
        metavar="FILE",
        type=path,
        help="PNG or SVG of --partition: each client's samples; or of --augment: images before and after",
    )
    several = "a run folder; several are drawn over each other"
    commands["plot"].add_argument("runs", metavar="RUN", nargs="+", type=path, help=several)
    commands["plot"].add_argument(
        "--out", metavar="FILE", type=path, default="plot.png", help="PNG or SVG (default: plot.png)"
    )
    axes = ("step", "samples", "seconds")
    commands["plot"].add_argument("--against", choices=axes, default="step", help="the horizontal axis (default: step)")


def _add_options(parser: _Parser, names: Iterable[str], defaults: Mapping[str, Any]) -> None:
    """Adds flags for options of the configuration, in their groups. Values stay text, which `_coerced` converts."""
    groups: dict[str, Any] = {}
    for name in names:
        option = OPTIONS[name]
        title = option.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        settings: dict[str, Any] = {"dest": name, "help": option.metadata["help"]}
        if option.metadata["kind"] is bool:
            groups[title].add_argument(flag(name), action="store_true", default=None, **settings)
            continue
        default = defaults.get(name, option.default)
        if default is not None:
            text = ",".join(map(str, default)) if isinstance(default, tuple) else default
            settings["help"] += f" (default: {text})"
        if option.metadata["bare"] is not None:
            settings |= {"nargs": "?", "const": option.metadata["bare"]}
        metavar = "|".join(option.metadata["choices"]) or name.upper()
        groups[title].add_argument(flag(name), metavar=metavar, **settings)


def _coerced(values: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns those of `names`, as the options' types."""
    return {name: coerce(OPTIONS[name], value, flag(name)) for name, value in values.items() if name in names}


def _without_rivals(table: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Returns `table` without what a flag says in another way."""
    rivals = {rival for pair in MUTUALLY_EXCLUSIVE for rival in pair if any(name in flags for name in pair)}
    return {name: value for name, value in table.items() if name not in rivals}
