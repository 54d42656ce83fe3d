"""The form of a run's exchange: what is asked for, where ranks lie, and what the cost model says is faster."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpgd.comm import levels
from ddpgd.comm.cluster import Cluster, Link
from ddpgd.comm.levels import RANKS_PER_NODE, find_nodes
from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.comm.wires import FORMATS, WIRES, Load
from ddpgd.config.continuation import continued
from ddpgd.config.exchange import form
from ddpgd.config.schema import Config, resolve
from ddpgd.config.validation import validate
from ddpgd.errors import InputError
from ddpgd.kernels.reference.backend import Reference
from ddpgd.run import exchange_form
from ddpgd.run.device import Machine
from ddpgd.run.exchange_form import Chosen, choose, measure, two_levels_are_faster
from runs import digits, records, train

INSIDE = Link(1e-6, 1e10)


def placed(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    """Puts rank i on the machine that is named by the letter i of `hosts`."""
    monkeypatch.setattr(levels, "node", lambda: hosts[int(threading.current_thread().name.removeprefix("rank "))])


def chosen(world_size: int, **given: Any) -> Chosen:
    """Returns the choice of every rank, without its groups' transports."""
    config = resolve(Config(data="synthetic", **given), world_size)

    def work(transport: Threads) -> tuple[tuple[int, ...] | None, str, str]:
        found = choose(config, Machine(None, ""), Reference(), transport, digits())
        return found.levels and found.levels.nodes, found.why, found.text

    results = threads.run(world_size, work)
    assert len(set(results)) == 1
    return results[0]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("hosts", "nodes", "why"),
    [
        ("a", (1,), ""),
        ("aabbb", (2, 3), ""),
        ("abc", (1, 1, 1), ""),
        ("abab", (), "the ranks of a do not follow each other"),
        ("aabca", (), "the ranks of a do not follow each other"),
    ],
)
def test_nodes_are_machines_whose_ranks_follow_each_other(
    monkeypatch: pytest.MonkeyPatch, hosts: str, nodes: tuple[int, ...], why: str
) -> None:
    placed(monkeypatch, hosts)
    assert threads.run(len(hosts), find_nodes) == [(nodes, why)] * len(hosts)


@pytest.mark.parametrize(("text", "nodes"), [("2", (2, 2, 1)), ("1,4", (1, 4)), ("5", (5,)), ("9", (5,))])
def test_tests_say_where_nodes_begin(text: str, nodes: tuple[int, ...]) -> None:
    def work(transport: Threads) -> tuple[tuple[int, ...], str]:
        return find_nodes(transport, {RANKS_PER_NODE: text} if transport.rank == 0 else {})

    assert threads.run(5, work) == [(nodes, "")] * 5


@pytest.mark.parametrize("text", ["0", "x", "1,1", "2,-1", "1,,1", "-1", "\u0663", "9" * 5000, "0,2", " "])
def test_junk_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=rf"^{RANKS_PER_NODE}=.*type unset {RANKS_PER_NODE}$"):
        threads.run(3, lambda own: find_nodes(own, {RANKS_PER_NODE: text}))


def test_the_cost_model_chooses_at_its_crossing_point() -> None:
    """Between nodes of 4 ranks: two levels save latencies and three quarters of the bytes, and add a sum inside."""
    flat, nodes = Load(128 * 1024, 8, 8), (4, 4)

    def taken(rate: float) -> bool:
        return two_levels_are_faster("float32", flat, nodes, Cluster(4, INSIDE, Link(1e-5, rate)))

    rates = [2.0**power for power in range(20, 40)]
    faster = [taken(rate) for rate in rates]
    assert faster == sorted(faster, reverse=True)
    assert 0 < faster.count(True) < len(faster)
    saved_bytes = (4 * 2 * 7 / 8 * 4 / 7 - 1) * 4 * flat.size
    added_s = 2 * 1e-6 * 1.2 + 2 * 0.75 * 4 * flat.size / INSIDE.bytes_per_s - 2 * 1e-5 * (1.6 - 1)
    crossing = saved_bytes / added_s
    assert taken(0.98 * crossing)
    assert not taken(1.02 * crossing)


def test_auto_takes_what_is_measured_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    placed(monkeypatch, "aabb")
    for between, nodes in ((Link(1e-5, 1e6), (2, 2)), (Link(1e-9, 1e15), None)):
        monkeypatch.setattr(exchange_form, "measure", lambda *_, link=between: Cluster(2, INSIDE, link))
        found, why, text = chosen(4)  # type: ignore[misc]
        assert found == nodes
        assert why.startswith("auto: 10 GB/s inside nodes, ")
        assert text == f", {'two-level' if nodes else 'flat'} ({why})"


@pytest.mark.parametrize(
    ("hosts", "given"),
    [
        ("aaaa", {}),
        ("abcd", {}),
        ("aabb", {"exchange": "flat"}),
        ("aabb", {"reduce": "fast"}),
        *[("aabb", {"wire": wire}) for wire in WIRES if wire != "float32"],
    ],
)
def test_auto_measures_nothing_where_there_is_no_choice(
    monkeypatch: pytest.MonkeyPatch, hosts: str, given: dict[str, Any]
) -> None:
    """On one machine, on machines of one rank, and for sums whose bits would tell the form."""
    placed(monkeypatch, hosts)
    monkeypatch.setattr(exchange_form, "measure", None)
    assert chosen(4, **given) == (None, "", "")


def test_ranks_that_are_no_neighbours_exchange_flatly_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    placed(monkeypatch, "abab")
    why = "the ranks of a do not follow each other"
    for exchange in ("auto", "two-level"):
        assert chosen(4, exchange=exchange) == (None, why, f", flat ({why})")
    with pytest.raises(InputError, match=rf"--exchange two-level: {why}; start ranks node by node"):
        chosen(4, exchange="two-level", wire="float16")


def test_links_are_measured_alike_on_all_ranks() -> None:
    def work(transport: Threads) -> Cluster:
        return measure(Reference(), levels.split(transport, (1, 3, 2)), transport)

    results = threads.run(6, work)
    assert len(set(results)) == 1
    assert results[0].ranks_per_node == 3
    assert all(link.latency_s > 0 and link.bytes_per_s > 1e5 for link in (results[0].inside, results[0].between))


@pytest.mark.parametrize("given", [{"reduce": "fast"}, {"wire": "topk"}, {"wire": "powersgd"}])
def test_sums_of_whole_vectors_have_one_level(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"--exchange two-level: --(reduce|wire) .* type --exchange flat"):
        validate(Config(exchange="two-level", **given))
    assert form(Config(**given)) == "flat"


@pytest.mark.parametrize("wire", FORMATS)
def test_a_resume_keeps_the_form_of_a_wire_that_loses(wire: str) -> None:
    for before, now, keeps in (
        ("two-level", "flat", False),
        ("two-level", "auto", False),
        ("auto", "two-level", False),
        ("auto", "flat", True),
        ("two-level", "two-level", True),
    ):
        saved = resolve(Config(wire=wire, exchange=before), 4)  # type: ignore[arg-type]
        assert continued(saved, {}, 2).exchange == before
        if keeps:
            assert form(continued(saved, {"exchange": now}, 2)) == form(saved)
        else:
            with pytest.raises(InputError, match=f"--exchange {now}: the checkpoint was trained with {before}"):
                continued(saved, {"exchange": now}, 2)


NODES = {"flat": "", "1+3": "1,3", "2+2": "2", "3+1": "3,1", "one node": "4"}


@pytest.fixture
def on_nodes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def say(nodes: str) -> None:
        monkeypatch.setenv(RANKS_PER_NODE, nodes)

    return say


@pytest.mark.parametrize("given", [{}, {"optimizer": "adam", "lr": 0.01, "micro_batch": 3, "clip_norm": 0.5}])
def test_runs_have_the_bits_of_one_rank(on_nodes: Callable[[str], None], tmp_path: Path, given: dict[str, Any]) -> None:
    alone = train(tmp_path / "alone", **given)
    for name, nodes in NODES.items():
        on_nodes(nodes)
        exchange = "two-level" if nodes else "flat"
        found = train(tmp_path / name, 4, exchange=exchange, **given)
        assert found["params_sha256"] == alone["params_sha256"], name
        assert records(tmp_path / name) == records(tmp_path / "alone")
        assert (found["exchange"], found["exchange_choice"]) == (exchange, "")
        assert (found["between_bytes_per_step"] > 0) == (name not in ("flat", "one node"))
        assert found["between_bytes_per_step"] < found["wire_bytes_per_step"]


def test_a_run_goes_on_in_another_split(on_nodes: Callable[[str], None], tmp_path: Path) -> None:
    constant = {"schedule": "constant"}
    whole = train(tmp_path / "whole", steps=12, **constant)
    on_nodes("1,3")
    train(tmp_path / "part", 4, steps=3, exchange="two-level", **constant)
    for steps, world_size, nodes in ((5, 4, "2"), (7, 3, "2"), (9, 1, ""), (12, 5, "4,1")):
        on_nodes(nodes)
        found = train(tmp_path / "part", world_size, resume="", steps=steps)
        assert found["exchange"] == "two-level"
    assert found["params_sha256"] == whole["params_sha256"]


@pytest.mark.parametrize("given", [{}, {"sync": "local", "local_steps": 3}])
def test_a_run_with_a_wire_that_loses_goes_on_with_equal_bits(
    on_nodes: Callable[[str], None], tmp_path: Path, given: dict[str, Any]
) -> None:
    options = {"schedule": "constant", "wire": "int8", "error_feedback": True, "exchange": "two-level", **given}
    on_nodes("2")
    whole = train(tmp_path / "whole", 4, steps=12, **options)
    train(tmp_path / "part", 4, steps=6, **options)
    assert train(tmp_path / "part", 4, resume="", steps=12)["params_sha256"] == whole["params_sha256"]
    flat = train(tmp_path / "flat", 4, steps=12, **options | {"exchange": "flat"})
    assert flat["params_sha256"] != whole["params_sha256"]
    with pytest.raises(InputError, match="--exchange flat: the checkpoint was trained with two-level"):
        train(tmp_path / "part", 4, resume="", steps=13, exchange="flat")


def test_one_rank_has_two_levels_as_well(tmp_path: Path) -> None:
    flat, in_levels = (train(tmp_path / exchange, exchange=exchange, wire="int8") for exchange in ("flat", "two-level"))
    assert flat["params_sha256"] == in_levels["params_sha256"]
    assert find_nodes(Alone(), {}) == ((1,), "")
