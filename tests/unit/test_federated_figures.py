"""Figures of clients: each client's own loss and accuracy, spread over clients."""

from pathlib import Path

import numpy as np
import pytest

from ddpgd.data.partition import divide
from ddpgd.run import checkpoint_search, inference
from runs import digits, records, train

pytestmark = pytest.mark.usefixtures("few_digits")


def test_loss_and_accuracy_of_clients(tmp_path: Path) -> None:
    given = {"sync": "federated", "clients": 25, "local_epochs": 1, "partition": "shards:2", "global_batch": None}
    summary = train(tmp_path, 3, **given, steps=2, lr=0.05)
    data, saved = digits(), checkpoint_search.find(tmp_path, print)[1]
    right, loss = [], []
    for part in divide("shards:2", data.train_labels, 25, 0):
        probabilities = inference.probabilities(saved, data.train_images[part])
        own = probabilities[np.arange(len(part)), data.train_labels[part]]
        loss.append(-np.log(own).mean())
        right.append(np.mean(probabilities.argmax(axis=1) == data.train_labels[part]))
    last = records(tmp_path)[-1]
    for told in (summary, last):
        assert told["client_loss_mean"] == pytest.approx(np.mean(loss), rel=1e-5)
        assert told["client_accuracy_mean"] == pytest.approx(np.mean(right))
        assert told["client_accuracy_std"] == pytest.approx(np.std(right))
        assert told["client_accuracy_worst_decile"] == pytest.approx(np.mean(np.sort(right)[:3]))


def test_they_can_be_left_out(tmp_path: Path) -> None:
    given = {"sync": "federated", "clients": 25, "local_epochs": 1, "global_batch": None, "steps": 2, "lr": 0.05}
    with_figures, without = (train(tmp_path / name, 2, **given, client_figures=name) for name in ("on", "off"))
    assert with_figures["params_sha256"] == without["params_sha256"]
    assert with_figures["client_accuracy_mean"] is not None
    assert without["client_accuracy_mean"] is None
    assert "client_accuracy_mean" not in records(tmp_path / "off")[-1]


def test_other_runs_have_none(tmp_path: Path) -> None:
    summary = train(tmp_path, 2, steps=2)
    assert summary["client_accuracy_mean"] is summary["epsilon"] is None
    assert summary["client_bytes"] == 0
    assert "client_accuracy_mean" not in records(tmp_path)[-1]
