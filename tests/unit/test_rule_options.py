"""A hyper-parameter that the chosen update rule does not have is refused where a user gives it, and nowhere else."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w

import ddpgd
from ddpgd.cli.arguments import parse
from ddpgd.config.schema import OPTIONS, Config, flag, to_table
from ddpgd.optim.rules import RULES
from ddpgd.run import starting

HYPER = sorted({option for rule in RULES.values() for option in rule.options})
LACKS = [(rule.name, option) for rule in RULES.values() for option in HYPER if option not in rule.options]
HAS = [(rule.name, option) for rule in RULES.values() for option in rule.options]
TINY: dict[str, Any] = {"data": "synthetic", "hidden": (8,), "quiet": True}


def other(option: str) -> Any:
    """Returns a value that is not the default."""
    return OPTIONS[option].default / 2


@pytest.mark.parametrize(("optimizer", "option"), LACKS)
@pytest.mark.parametrize("value", ["default", "other"])
def test_flags_are_refused(optimizer: str, option: str, value: str, tmp_path: Path) -> None:
    text = str(OPTIONS[option].default if value == "default" else other(option))
    (tmp_path / "c.toml").write_text(f'optimizer = "{optimizer}"\n')
    for words in (["--optimizer", optimizer], ["--config", str(tmp_path / "c.toml")]):
        with pytest.raises(ddpgd.InputError, match=f"{flag(option)} has no effect: --optimizer {optimizer} has no"):
            parse(["train", *words, flag(option), text])


@pytest.mark.parametrize(("optimizer", "option"), LACKS)
def test_other_values_in_files_and_python_are_refused(optimizer: str, option: str, tmp_path: Path) -> None:
    config = {"optimizer": optimizer, option: other(option)}
    (tmp_path / "c.toml").write_text(tomli_w.dumps(config))
    with pytest.raises(ddpgd.InputError, match=f"{flag(option)} has no effect"):
        starting._configure(parse(["train", "--config", str(tmp_path / "c.toml")])["given"], None, 1)
    with pytest.raises(ddpgd.InputError, match=f"{flag(option)} has no effect"):
        ddpgd.train(Config(**TINY, **config))


@pytest.mark.parametrize("optimizer", RULES)
def test_defaults_are_fine(optimizer: str, tmp_path: Path) -> None:
    """The config.toml of a run holds all options, and can be the --config of another run."""
    config = Config(optimizer=optimizer)
    (tmp_path / "c.toml").write_text(tomli_w.dumps(to_table(config)))
    assert starting._configure(parse(["train", "--config", str(tmp_path / "c.toml")])["given"], None, 1) == config


@pytest.mark.parametrize(("optimizer", "option"), HAS)
def test_the_rules_own_are_accepted(optimizer: str, option: str) -> None:
    given = parse(["train", "--optimizer", optimizer, flag(option), str(other(option))])["given"]
    assert starting._configure(given, None, 1) == Config(**{"optimizer": optimizer, option: other(option)})


@pytest.mark.parametrize(("optimizer", "option"), LACKS)
def test_runs_of_versions_that_accepted_it_go_on(
    optimizer: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = str(tmp_path / "run")
    with monkeypatch.context() as before:
        before.setattr(starting, "check_rule_has", lambda *_: None)
        ddpgd.train(Config(**TINY, optimizer=optimizer, steps=2, run_dir=run_dir, **{option: other(option)}))
    assert ddpgd.train(Config(resume=run_dir, steps=4, quiet=True))["steps"] == 4
