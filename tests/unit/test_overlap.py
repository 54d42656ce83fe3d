"""--overlap: the buckets that it means, and the reasons for which there is one."""

from pathlib import Path
from typing import Any

import pytest

from ddpgd.comm.buckets import fastest
from ddpgd.comm.cluster import Cluster, Link
from ddpgd.comm.transport import Alone, Transport
from ddpgd.comm.wires import Load
from ddpgd.config.schema import Config, resolve
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import BLOCK
from ddpgd.run import build_network
from ddpgd.run.overlap import FLOPS, Overlap, layer_costs, plan
from runs import digits, train

FAST, SLOW = Link(1e-6, 1e11), Link(1e-3, 1e9)


class Ranks(Alone):
    name = "nccl"
    world_size = 4


def planned(
    link: Link = FAST, transport: Transport | None = None, nodes: tuple[int, ...] = (), **given: Any
) -> Overlap:
    config = resolve(Config(**({"data": "synthetic", "hidden": (40, 40), "global_batch": 64} | given)), 4)
    return plan(config, Reference(), transport or Ranks(), digits(), nodes, lambda: link)


def test_on_means_a_bucket_for_each_layer() -> None:
    found = planned(overlap="on")
    assert found.cuts == (33 * BLOCK, 31 * BLOCK)
    assert found.text == ", 3 buckets beside the backward pass"
    assert planned(overlap="off") == Overlap()


def test_auto_asks_the_cost_model() -> None:
    large: dict[str, Any] = {"hidden": (2048, 2048), "micro_batch": 64}
    assert planned(**large).cuts
    assert planned(SLOW, **large) == planned() == Overlap()


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        ("--sync local", {"sync": "local"}),
        ("--reduce fast", {"reduce": "fast"}),
        ("--wire float16", {"wire": "float16"}),
        ("--wire topk", {"wire": "topk"}),
        ("--shard-optimizer", {"shard_optimizer": "on"}),
        ("two levels", {"nodes": (2, 2)}),
        ("--tensor", {"shards": 2, "tensor": 2}),
        ("too small", {"hidden": ()}),
    ],
)
def test_what_cannot_travel_beside_the_backward_pass_says_why(reason: str, given: dict[str, Any]) -> None:
    found = planned(overlap="on", **given)
    assert not found.cuts
    assert reason in found.text
    assert planned(**given).text == ""


def test_on_cpus_a_run_says_that_nothing_overlaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = train(tmp_path / "on", 2, hidden=(40,), overlap="on", quiet=False)
    assert ", no overlap: threads does not send while a rank computes" in capsys.readouterr().out
    assert on["num_buckets"] == 1
    assert on["params_sha256"] == train(tmp_path / "off", 2, hidden=(40,), overlap="off")["params_sha256"]


def test_the_first_layer_has_no_gradient_of_its_inputs() -> None:
    config = Config(hidden=(784,), precision="bfloat16")
    first, last = layer_costs(config, (28, 28), 128, FLOPS["bfloat16"])
    assert first.backward_s == pytest.approx(2 * 128 * 784 * 784 / 2e14)
    assert last.backward_s == pytest.approx(4 * 128 * 784 * 10 / 2e14)


def test_longer_computing_hides_more_buckets() -> None:
    config = Config(hidden=(2048, 2048, 2048))
    load = Load(build_network.layout(config, (28, 28)).size, 8, 4)
    cluster = Cluster(4, FAST, FAST)
    counts = [
        len(fastest("float32", load, layer_costs(config, (28, 28), rows, 2e13), cluster).cuts)
        for rows in (1, 256, 4096)
    ]
    assert counts[0] == 0 < counts[1]
    assert counts[1] <= counts[2] + 1
