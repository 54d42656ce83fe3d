"""Figures of layers in records: those of plain NumPy, equal in every layout, and they change no bit of training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.comm.grid import Shape
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD
from ddpgd.run import checkpoint
from ddpgd.run.records import LAYER_FIGURES, read_records
from ddpgd.training.units import USELESS, UnitProbe
from runs import Record, digits, records, train

pytestmark = pytest.mark.usefixtures("few_digits")

GIVEN: dict[str, Any] = {"hidden": (13, 9), "activation": "tanh", "lr": 0.5, "schedule": "constant"}
WHOLE_BATCH: dict[str, Any] = {"global_batch": 330, "micro_batch": 64, "steps": 4, "evaluate_every": 2}
OUTPUTS = {
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 0.5 + 0.5 * np.tanh(x / 2),
}
SLOPES = {"relu": lambda out: out > 0, "tanh": lambda out: 1 - out**2, "sigmoid": lambda out: out * (1 - out)}


def layers_of(folder: Path, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases by layer, float64, of the checkpoint after a step."""
    saved = checkpoint.load(folder / "checkpoints" / f"step-{step:08d}.safetensors").arrays
    names = sorted(name[: -len(".weight")] for name in saved if name.startswith("params.") and name.endswith(".weight"))
    return [(saved[f"{name}.weight"].astype(float), saved[f"{name}.bias"].astype(float)) for name in names]


def norms(layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.array([np.sqrt(sum((tensor**2).sum() for tensor in layer)) for layer in layers])


def outputs_of(layers: list[tuple[np.ndarray, np.ndarray]], images: np.ndarray, activation: str) -> list[np.ndarray]:
    """Inputs, outputs of hidden layers, logits."""
    outputs = [(images / 255 - PIXEL_MEAN) / PIXEL_STD]
    for number, (weight, bias) in enumerate(layers, start=1):
        sums = outputs[-1] @ weight + bias
        outputs.append(sums if number == len(layers) else OUTPUTS[activation](sums))
    return outputs


def gradient(layers: list[tuple[np.ndarray, np.ndarray]], activation: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The gradient of the mean cross-entropy over all training samples."""
    data = digits()
    *outputs, logits = outputs_of(layers, data.train_images, activation)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    dout = shares / shares.sum(axis=1, keepdims=True) - np.eye(10)[data.train_labels]
    found = []
    for (weight, _), x in zip(reversed(layers), reversed(outputs), strict=True):
        found.insert(0, (x.T @ dout / len(x), dout.mean(axis=0)))
        dout = dout @ weight.T * SLOPES[activation](x)
    return found


@pytest.mark.parametrize("activation", USELESS)
def test_figures_are_those_of_plain_numpy(activation: str, tmp_path: Path) -> None:
    train(tmp_path, **GIVEN | WHOLE_BATCH | {"activation": activation, "checkpoint_every": 1})
    for record in read_records(tmp_path)[2:]:
        before, after = (layers_of(tmp_path, step) for step in (record["step"] - 1, record["step"]))
        moved = [tuple(new - old for new, old in zip(*pair, strict=True)) for pair in zip(after, before, strict=True)]
        assert record["layer_grad_norms"] == pytest.approx(norms(gradient(before, activation)), rel=1e-4)
        assert record["layer_param_norms"] == pytest.approx(norms(after), rel=1e-6)
        assert record["layer_update_ratios"] == pytest.approx(norms(moved) / norms(after), rel=1e-3)
        assert np.linalg.norm(record["layer_grad_norms"]) == pytest.approx(record["grad_norm"], rel=1e-5)


@pytest.mark.parametrize(
    ("activation", "lr", "field"),
    [
        ("relu", 3.0, "layer_dead_shares"),
        ("tanh", 20.0, "layer_saturated_shares"),
        ("sigmoid", 90.0, "layer_saturated_shares"),
    ],
)
def test_shares_of_units_are_those_of_plain_numpy(activation: str, lr: float, field: str, tmp_path: Path) -> None:
    train(
        tmp_path,
        **GIVEN | WHOLE_BATCH | {"activation": activation, "lr": lr, "checkpoint_every": 2, "hidden": (40, 30)},
    )
    found = {record["step"]: record for record in read_records(tmp_path)}
    for step in (2, 4):
        _, *hidden, _ = outputs_of(layers_of(tmp_path, step), digits().test_images[:512], activation)
        edges = {"relu": lambda out: out == 0, "tanh": lambda out: abs(out) > 0.995}
        beyond = edges.get(activation, lambda out: abs(out - 0.5) > 0.4975)
        wanted = [(beyond(out).mean(axis=0) >= (1 if activation == "relu" else 0.99)).mean() for out in hidden]
        assert found[step][field] == pytest.approx(wanted, abs=1e-9)
        assert set(found[step]) & set(LAYER_FIGURES[3:]) == {field}
    assert 0 < sum(found[4][field]) < 2


LAYOUTS = [
    *((Shape(data), sharded) for data in (2, 3, 4) for sharded in ("off", "on")),
    *((Shape(1, *parts), "off") for parts in ((1, 2), (2, 1))),
    *((Shape(*parts), "on") for parts in ((2, 1, 2), (1, 3, 1), (2, 2, 1))),
]


def figures(folder: Path, shape: Shape, sharded: str, **more: Any) -> list[Record]:
    layout = {"tensor": shape.tensor, "pipeline": shape.pipeline, "shard_optimizer": sharded}
    train(folder, shape.data * shape.replica, **GIVEN | {"shards": 4, "lr": 20.0} | layout | more)
    return [{name: record.get(name) for name in LAYER_FIGURES} for record in records(folder)]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_every_layout_has_the_figures_of_one_rank(activation: str, tmp_path: Path) -> None:
    given = {"activation": activation, "lr": 3.0, "steps": 4, "evaluate_every": 2}
    wanted = figures(tmp_path / "one", Shape(), "off", **given)
    kind = USELESS[activation].kind
    assert all(len(record["layer_update_ratios"]) == 3 for record in wanted)
    assert sum(sum(record[f"layer_{kind}_shares"] or ()) for record in wanted) > 0
    for number, (shape, sharded) in enumerate(LAYOUTS):
        assert figures(tmp_path / str(number), shape, sharded, **given) == wanted, (shape, sharded)


def test_counting_units_over_other_samples_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"activation": "relu", "lr": 3.0, "steps": 4}
    wanted = figures(tmp_path / "one", Shape(), "off", **given)
    see = UnitProbe.see
    first = range(1)
    monkeypatch.setattr(
        UnitProbe, "see", lambda self, group, *sizes: see(self, group._replace(micro_batches=first), *sizes)
    )
    assert figures(tmp_path / "fault", Shape(2), "off", **given) != wanted


@pytest.mark.parametrize("given", [{"wire": "topk"}, {"wire": "int8"}, {"reduce": "fast"}, {"optimizer": "adam"}])
def test_every_exchange_has_figures(given: dict[str, Any], tmp_path: Path) -> None:
    """A wire's gradient is what the update gets, so its norm is that of the record."""
    train(tmp_path, 3, **GIVEN | given)
    for record in records(tmp_path):
        assert np.linalg.norm(record["layer_grad_norms"]) == pytest.approx(record["grad_norm"], rel=1e-5)
        assert min(record["layer_update_ratios"]) > 0


@pytest.mark.parametrize(
    "given", [{"sync": "local", "local_steps": 2}, {"sync": "federated", "clients": 3, "global_batch": None}]
)
def test_rounds_of_several_updates_have_shares_of_units_alone(given: dict[str, Any], tmp_path: Path) -> None:
    train(tmp_path, 2, **GIVEN | given)
    found = read_records(tmp_path)
    assert not any(set(record) & set(LAYER_FIGURES[:3]) for record in found)
    assert all(("layer_saturated_shares" in record) == ("test_accuracy" in record) for record in found)


def test_a_gradient_that_is_not_finite_has_no_norm(tmp_path: Path) -> None:
    train(tmp_path, **GIVEN | {"activation": "relu", "lr": 1e20, "non_finite": "skip", "steps": 3})
    last = read_records(tmp_path)[-1]
    assert last["layer_grad_norms"][0] is None
    assert last["layer_update_ratios"] == [0.0] * 3 or last["layer_update_ratios"] == [None] * 3


def test_measuring_changes_no_bit(tmp_path: Path) -> None:
    often, never = (train(tmp_path / str(every), 2, **GIVEN, log_every=every) for every in (1, 1000))
    assert often["params_sha256"] == never["params_sha256"]
    assert sum("layer_grad_norms" in record for record in read_records(tmp_path / "1000")) == 2


def test_a_network_without_hidden_layers_has_no_units(tmp_path: Path) -> None:
    train(tmp_path, hidden=())
    assert not any(set(record) & set(LAYER_FIGURES[3:]) for record in read_records(tmp_path))
    assert all(len(record["layer_grad_norms"]) == 1 for record in read_records(tmp_path))
