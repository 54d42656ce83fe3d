"""`ddpgd plan --sync federated`: rounds on ranks and on clients' devices, by hand and by laws; what it refuses."""

import json
import math
from typing import Any

import pytest

from ddpgd.cli.main import main
from ddpgd.config.schema import Config
from ddpgd.run import build_network

NETWORK = ("--parameters", "200k", "--compute-time", "10ms", "--link", "1Gbit")
"""A client's batch of 10 takes 10 ms, and an update nothing."""
ROUND = ("plan", "--sync", "federated", *NETWORK, "--clients", "30", "--client-fraction", "0.4", "--samples", "3000")
CLIENT_S = 0.5


def predicted(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert main([*ROUND, *flags, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_rounds_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """12 clients of 100 samples, 5 passes each: 0.5 s a client."""
    rows = predicted(capsys, "--ranks", "1,2,3,5,12,40")["predictions"]
    most = [12, 6, 4, 3, 1, 1]
    assert [one["compute_s"] for one in rows] == pytest.approx([CLIENT_S * own for own in most], rel=1e-3)
    for one, own in zip(rows, most, strict=True):
        parts = one["compute_s"] + one["wait_s"] + one["exchange_s"]
        assert one["step_s"] == pytest.approx(parts)
        assert one["efficiency"] == pytest.approx(12 * CLIENT_S / (one["world_size"] * one["step_s"]), rel=1e-3)
        assert one["wait_s"] < 0.02 * own
    assert rows[0]["exchange_s"] == rows[0]["wire_bytes"] == 0
    assert all(one["wire_bytes"] > 0 for one in rows[1:])


def test_unequal_clients_make_ranks_wait(capsys: pytest.CaptureFixture[str]) -> None:
    equal, unequal = (
        predicted(capsys, "--ranks", "4", "--partition", partition)["predictions"][0]
        for partition in ("iid", "sizes:lognormal:1.5")
    )
    assert unequal["wait_s"] > 10 * equal["wait_s"]


def test_stragglers_and_smaller_batches_cost_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    whole, late = (predicted(capsys, "--ranks", "1", *flags)["predictions"][0] for flags in ((), ("--stragglers", "1")))
    assert 1 / 5 < late["compute_s"] / whole["compute_s"] < 4 / 5


def test_devices_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """Equal devices end together: 20 times 0.5 s of computing, and 8 bytes a param at 1 MB/s."""
    flags = ("--device-spread", "1e-9", "--device-slower", "20", "--device-link", "1MB", "--ranks", "1")
    (none, *early) = predicted(capsys, *flags, "--deadline", "11s")["devices"]
    round_s = 20 * CLIENT_S + 8 * 200_000 / 1e6
    assert none == {"deadline_s": None, "round_s": pytest.approx(round_s, rel=1e-3), "arrive": 1.0}
    assert early == [{"deadline_s": 11.0, "round_s": 11.0, "arrive": 0.0}]


def test_a_later_deadline_loses_fewer_clients_and_takes_longer(capsys: pytest.CaptureFixture[str]) -> None:
    rows = predicted(capsys, "--ranks", "1", "--partition", "sizes:lognormal:1.0")["devices"]
    ordered = sorted(rows, key=lambda one: one["deadline_s"] or math.inf)
    assert [one["arrive"] for one in ordered] == pytest.approx([0.5, 0.8, 0.95, 1.0], abs=0.01)
    assert sorted(one["round_s"] for one in ordered) == [one["round_s"] for one in ordered]
    assert all(one["round_s"] <= (one["deadline_s"] or math.inf) * (1 + 1e-9) for one in ordered)


def test_a_coded_wire_sends_less_up(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--device-link", "1MB", "--device-spread", "1e-9", "--ranks", "1")
    plain, coded = (predicted(capsys, *flags, "--wire", wire)["devices"][0] for wire in ("float32", "float16"))
    assert plain["round_s"] - coded["round_s"] == pytest.approx(2 * 200_000 / 1e6, rel=0.01)


def test_it_measures_here(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("plan", "--sync", "federated", "--hidden", "16", "--measure", "--seconds", "0.2", "--link", "1Gbit")
    assert main([*flags, "--ranks", "1,4", "--client-batch", "all", "--clients", "40"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("a round: 4 of 40 clients (iid), a client's training ")
    assert [line.split()[0] for line in said[2:4]] == ["1", "4"]
    size = build_network.layout(Config(hidden=(16,)), (28, 28)).size
    assert f"{8 * size / 1e3:.3g} KB down and up at 10Mbit" in said[5]
    assert said[7].split()[0] == "none"


@pytest.mark.parametrize("flags", [["--ranks", "50k"], ["--clients", "20000", "--samples", "20000"]])
def test_large_numbers_are_answered(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ROUND, *flags]) == 0
    assert "rounds/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([*ROUND, "--overlap", "0.5"], "--overlap: a client trains its network alone; drop it, or --sync federated"),
        ([*ROUND, "--deadline", "soon"], "--deadline: 'soon' is not a time; type for example"),
        ([*ROUND, "--device-slower", "0"], "--device-slower: '0' is not a number above 0; type for example 10"),
        ([*ROUND, "--device-link", "5"], "--device-link: '5' is not a rate; type for example"),
        ([*ROUND, "--clients", "5000"], "--clients 5000: 5,000 parts of 3,000 training samples would be empty"),
        ([*ROUND, "--layouts"], "--layouts: --parameters does not say which layers there are"),
        (["plan", *NETWORK, "--deadline", "3s"], "--deadline is for --sync federated; type that as well, or drop it"),
        (["plan", *NETWORK, "--clients", "5"], "--clients is for --sync federated"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert line in capsys.readouterr().err
