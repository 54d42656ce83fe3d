"""`ddpgd plan --overlap auto`: the buckets that a run would take, and what they leave of the exchange."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ddpgd.cli.main import main
from ddpgd.comm.cluster import Cluster, Link, seconds
from ddpgd.comm.transport import Alone
from ddpgd.comm.windows import buckets
from ddpgd.comm.wires import WIRES, Load
from ddpgd.config.schema import Config, resolve
from ddpgd.kernels.cuda.joined import batched_micro_batches
from ddpgd.kernels.reference.backend import Reference
from ddpgd.run import build_network, overlap
from ddpgd.scaling.cost_model import Costs, Prediction, Work, predict
from ddpgd.scaling.fit import Fit
from ddpgd.scaling.plan import Plan
from ddpgd.scaling.plan_inputs import STATED
from ddpgd.scaling.plan_overlap import transport_of
from runs import digits

IMAGE = (28, 28)
CONFIG = Config(hidden=(2048, 1024, 2048), micro_batch=64)
SIZE = build_network.layout(CONFIG, IMAGE).size
LAYERS = overlap.layer_shares(CONFIG, IMAGE)
NO_TIME = Costs(0.0, 0.0)


def work(**given: Any) -> Work:
    return replace(Work(SIZE, 4096, 64, layers=LAYERS), **given)


def predicted(sample_us: float, rate: float, world_size: int, latency_us: float = 2, **given: Any) -> Prediction:
    link = Link(latency_us * 1e-6, rate)
    return predict(work(**given), replace(NO_TIME, sample_s=sample_us * 1e-6), Cluster(8, link, link), world_size)


def played_s(found: Prediction, sample_us: float, link: Link) -> float:
    """Plays the last backward pass of a step and the sums after each other; returns what comes after computing."""
    load = Load(SIZE, 64, found.world_size)
    rows = 64 * min(-(-64 // found.world_size), batched_micro_batches(64, SIZE))
    times = []
    starts = sorted(layer.start for layer in LAYERS if layer.start)
    backward_s = sum(layer.backward_s for layer in LAYERS) * rows * sample_us * 1e-6
    for chosen in range(1 << len(starts)):
        cuts = tuple(start for bit, start in reversed(list(enumerate(starts))) if chosen >> bit & 1)
        if len(cuts) != found.num_buckets - 1:
            continue
        end_s = 0.0
        for bucket in buckets(SIZE, cuts):
            ready = sum(layer.backward_s for layer in LAYERS if layer.start >= bucket.start) * rows * sample_us * 1e-6
            own_s = seconds([WIRES["float32"].of_bucket(load, bucket)], Cluster(8, link, link))
            end_s = max(end_s, ready) + own_s
        times.append(end_s - backward_s)
    return min(times)


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("rate", [1e9, 1e10, 1e11])
@pytest.mark.parametrize("sample_us", [0.01, 1, 10])
def test_what_is_left_of_the_exchange_is_that_of_the_chosen_buckets(
    sample_us: float, rate: float, world_size: int
) -> None:
    found = predicted(sample_us, rate, world_size)
    whole = predicted(sample_us, rate, world_size, layers=())
    assert found.exchange_s <= whole.exchange_s
    assert found.exchange_s - found.coding_s == pytest.approx(played_s(found, sample_us, Link(2e-6, rate)))
    assert found.step_s == pytest.approx(found.compute_s + found.wait_s + found.exchange_s)
    assert found.wire_bytes >= whole.wire_bytes


def test_longer_computing_hides_more_until_one_bucket_is_left() -> None:
    left = [predicted(sample_us, 1e10, 8).exchange_s for sample_us in (0.1, 1, 10, 100)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.3 * predicted(100, 1e10, 8, layers=()).exchange_s
    assert predicted(100, 1e10, 8).num_buckets > 1
    assert predicted(100, 1e10, 8, latency_us=1e5) == predicted(100, 1e10, 8, latency_us=1e5, layers=())


@pytest.mark.parametrize(
    "given",
    [
        {"layers": ()},
        {"layers": LAYERS[:1]},
        {"reduce": "fast"},
        {"exchange": "two-level"},
        {"sharded": True},
        {"wire": "float16"},
        {"wire": "topk", "density": 0.01},
        {"local_steps": 4},
    ],
)
def test_what_travels_whole_is_predicted_whole(given: dict[str, Any]) -> None:
    found = predicted(10, 1e10, 8, **given)
    assert found == predicted(10, 1e10, 8, **{**given, "layers": ()})
    assert found.num_buckets == 1


@pytest.mark.parametrize("hidden", [(2048, 2048), (64,), (512, 512, 512)])
def test_the_buckets_are_those_of_a_run_over_such_a_link(hidden: tuple[int, ...]) -> None:
    """Compares with a run, where a rank computes as fast as it assumes."""

    class Ranks(Alone):
        name = "nccl"
        world_size = 4

    class Gpu(Reference):
        def batched_micro_batches(self, micro_batch: int, size: int) -> int:
            return batched_micro_batches(micro_batch, size)

    config = resolve(Config(data="synthetic", hidden=hidden, global_batch=64, micro_batch=16), 4)
    link = Link(1e-6, 1e11)
    taken = overlap.plan(config, Gpu(), Ranks(), digits(), (), lambda: link)
    of_a_second = overlap.layer_shares(config, IMAGE)
    row_s = sum(one.backward_s for one in overlap.layer_costs(config, IMAGE, 1, overlap.FLOPS["float32"]))
    sample_s = row_s / sum(one.backward_s for one in of_a_second)
    size = build_network.layout(config, IMAGE).size
    found = predict(
        Work(size, 64, 16, layers=of_a_second), replace(NO_TIME, sample_s=sample_s), Cluster(4, link, link), 4
    )
    assert found.num_buckets == len(taken.cuts) + 1


def test_shares_of_layers_are_those_of_a_pass() -> None:
    first, last = overlap.layer_shares(Config(hidden=(784,)), IMAGE)
    total = 784 * (4 * 784 + 6 * 10)
    assert first.backward_s == pytest.approx(2 * 784 * 784 / total)
    assert last.backward_s == pytest.approx(4 * 784 * 10 / total)


def test_ranks_send_over_what_is_named_or_measured() -> None:
    measured = Fit(STATED, {}, None, 100, 2, transport="nccl")
    assert transport_of(Config(), None, on_gpu=False) == "mpi-host"
    assert transport_of(Config(), None, on_gpu=True) == "nccl"
    assert transport_of(Config(), measured, on_gpu=True) == "nccl"
    assert transport_of(Config(), replace(measured, transport="mpi-host"), on_gpu=True) == "mpi-host"
    assert transport_of(Config(), replace(measured, world_size=1), on_gpu=False) == "mpi-host"
    assert transport_of(Config(transport="mpi-host"), measured, on_gpu=True) == "mpi-host"


@pytest.mark.parametrize(
    ("share_gpu", "on_gpu", "are_cut"), [(False, True, True), (True, True, False), (False, None, False)]
)
def test_ranks_that_share_a_gpu_have_no_buckets(share_gpu: bool, on_gpu: bool | None, are_cut: bool) -> None:
    config = Config(hidden=(4096, 4096), accumulate=1, share_gpu=share_gpu)
    plan = Plan(config, {"compute_time": "20ms", "link": "100Gbit"}, None, SIZE, (0, 0), on_gpu=on_gpu)
    assert bool(plan.work(8).layers) == are_cut


STATED_RUN = ("plan", "--hidden", "4096,4096", "--micro-batch", "256", "--compute-time", "20ms", "--link", "100Gbit")


def answered(capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict[str, Any]]:
    assert main([*STATED_RUN, "--ranks", "1,8", "--json", *flags]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["predictions"]
    return found


def test_plan_takes_buckets_over_nccl(capsys: pytest.CaptureFixture[str]) -> None:
    alone, eight = answered(capsys, "--transport", "nccl")
    (_, whole), (_, typed) = answered(capsys), answered(capsys, "--overlap", "auto")
    assert [one["num_buckets"] for one in (alone, eight, whole, typed)] == [1, eight["num_buckets"], 1, 1]
    assert eight["num_buckets"] > 1
    assert typed == whole
    assert 0 < eight["exchange_s"] < whole["exchange_s"]
    assert eight["hidden_s"] > 0 == whole["hidden_s"]
    assert answered(capsys, "--backend", "cupy")[1] == eight
    assert answered(capsys, "--backend", "cupy", "--share-gpu")[1]["num_buckets"] == 1
    assert answered(capsys, "--transport", "nccl", "--overlap", "0")[1]["exchange_s"] == whole["exchange_s"]


def test_the_table_says_what_the_exchange_is(capsys: pytest.CaptureFixture[str]) -> None:
    main([*STATED_RUN, "--ranks", "8", "--transport", "nccl"])
    told = capsys.readouterr().out
    assert "buckets" in told.splitlines()[0].split()
    assert "(exchange: what the backward pass does not hide; over nccl, in buckets of layers" in told
    assert "buckets beside the backward pass" in told.splitlines()[-1]
    main([*STATED_RUN, "--ranks", "8", "--overlap", "auto"])
    assert (
        "none of it beside the backward pass: mpi-host does not send while a rank computes" in capsys.readouterr().out
    )
    main([*STATED_RUN, "--ranks", "8", "--overlap", "auto", "--transport", "nccl", "--latency", "1s"])
    assert "none of it beside the backward pass: one bucket is fastest" in capsys.readouterr().out


def test_data_parallel_layouts_have_the_same_buckets(capsys: pytest.CaptureFixture[str]) -> None:
    def exchange_s(*flags: str) -> dict[tuple[int, int], float]:
        assert main([*STATED_RUN, "--ranks", "4", "--shards", "2", "--layouts", "--json", *flags]) == 0
        rows = json.loads(capsys.readouterr().out)["layouts"]["4"]
        return {(row["shape"]["pipeline"], row["shape"]["tensor"]): row["exchange_s"] for row in rows}

    whole, beside = exchange_s("--shard-optimizer", "off"), exchange_s("--transport", "nccl")
    assert beside[1, 1] < whole[1, 1]
    assert {shape for shape in whole if beside[shape] != whole[shape]} == {(1, 1)}


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ("--parameters", "25.6M", "--compute-time", "120ms", "--link", "25Gbit", "--overlap", "auto"),
            "--overlap auto: --parameters does not say which layers there are; type --hidden 512,512, or a fraction",
        ),
        ((*STATED_RUN[1:], "--overlap", "on"), "--overlap: 'on' is not a fraction; type a number from 0 to 1, or auto"),
    ],
)
def test_wrong_input_is_one_line(flags: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *flags]) == 2
    assert line in capsys.readouterr().err
