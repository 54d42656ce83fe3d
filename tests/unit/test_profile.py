"""`ddpgd profile`: every op of a step, its FLOP, and what it refuses."""

import json

import pytest

from ddpgd.cli.main import main
from ddpgd.config.schema import Config
from ddpgd.scaling import gemm, profile

SMALL = ["profile", "--hidden", "16", "--micro-batch", "32", "--global-batch", "64", "--steps", "3"]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(gemm, "_NUM_ROUNDS", 3)
    monkeypatch.setattr(profile, "SIDE", 64)


def test_the_products_of_a_step_are_all_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    calls = {op["name"]: op["calls"] for op in found["ops"] if op["mflop"]}
    assert calls == dict.fromkeys(
        ["dense_forward 32x784x16", "dense_forward 32x16x10", "dense_backward_params 784x32x16",
         "dense_backward_params 16x32x10", "dense_backward_input 32x10x16"], 2.0,
    )  # fmt: skip
    assert found["mflop"] == pytest.approx(1e-6 * 2 * gemm.flop((784, 16, 10), 32))
    assert found["mflop"] == pytest.approx(1e-6 * 2 * 2 * 32 * (2 * 784 * 16 + 3 * 16 * 10))
    assert all(op["us"] > 0 for op in found["ops"] if op["mflop"])


def test_the_table_leads_with_a_conclusion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("784-16-10, 64 samples a step in micro-batches of 32, one rank")
    assert lines[2].startswith("A step takes ")
    assert "of this machine's" in lines[2]
    assert all(line.count("|") == 9 for line in lines[4:])


def test_the_rule_of_the_configuration_is_timed() -> None:
    names = {
        op.name.rpartition(" ")[0] for op in profile.profile(Config(hidden=(8,), optimizer="adam"), num_steps=2).ops
    }
    assert {"gather_normalise", "cross_entropy", "decide", "update adam"} < names


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--hidden", "wide"), "wide"),
        (("--steps", "0"), "'0' is not a number above 0"),
        (("--wire", "int8"), "ddpgd profile has no such argument"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *arguments]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
