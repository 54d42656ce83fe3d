"""The commands' arguments: flags, most of them generated from the fields of the configuration, and their values."""

import argparse
import re
from collections.abc import Collection, Container, Iterable, Mapping
from importlib import import_module
from typing import Any, NoReturn

from ddpgd.cli.table import TABLE
from ddpgd.config.parsing import coerce, did_you_mean, path
from ddpgd.config.schema import MUTUALLY_EXCLUSIVE, OPTIONS, flag
from ddpgd.config.toml_file import read_toml
from ddpgd.config.validation import check_rule_has
from ddpgd.data.augmentations import AUGMENT_OPTIONS
from ddpgd.errors import DdpgdError, InputError
from ddpgd.run.report import VERSION

_OPTIONS: dict[str, Collection[str]] = {
    "train": OPTIONS,
    "doctor": ("tensor", "pipeline"),
    "data": (*AUGMENT_OPTIONS, "input_pool", "partition", "clients", "seed"),
}
"""The commands that have options of the configuration, and which."""


class _Shown(DdpgdError):
    """Help was asked for and has been printed."""

    exit_code = 0


class _Parser(argparse.ArgumentParser):
    """argparse that says in one line what is wrong, as an InputError."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        flag = re.fullmatch(r"argument (--[a-z-]+): expected one argument", message)
        hint = f"; a value that begins with - is typed as {flag[1]}=-1" if flag else ""
        raise InputError(f"{message}{hint}; `{self.prog} --help` shows how")

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
        takes_words = any(not action.option_strings for action in commands[parsed.command]._actions)
        is_word = takes_words and re.match(r"-[^-]", name)
        near = "; type -- before it if it is no flag" if is_word else did_you_mean(name, known)
        raise InputError(
            f"{name}: ddpgd {parsed.command} has no such argument{near}; `ddpgd {parsed.command} --help` lists the flags"
        )
    values = {name: value for name, value in vars(parsed).items() if value is not None}
    if parsed.command == "scaling":
        parse(["train", *parsed.flags])  # of runs that it starts later
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


def make_parser(wanted: Container[str] = TABLE) -> tuple[_Parser, dict[str, _Parser]]:
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
        name: subparsers.add_parser(name, help=one.text, description=one.text, epilog=f"example:\n  {one.example}")
        for name, one in TABLE.items()
    }
    _add_own_flags(commands)
    for name in commands:
        if name in wanted:
            if TABLE[name].module:
                import_module(TABLE[name].module).add_flags(commands[name])
            _add_options(commands[name], _options(name), _defaults(name))
    return parser, commands


def _defaults(command: str) -> dict[str, Any]:
    """Returns the defaults of a command's options that are not those of the configuration."""
    module = TABLE[command].module
    defaults: dict[str, Any] = getattr(import_module(module), "DEFAULTS", {}) if module else {}
    return defaults


def _options(command: str) -> Collection[str]:
    """Returns the options of the configuration that a command has."""
    if TABLE[command].module:
        options: Collection[str] = import_module(TABLE[command].module).WORK_OPTIONS
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
