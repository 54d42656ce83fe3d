"""`ddpgd gradcheck`: right networks pass, and a planted fault is found in its layer."""

# ruff: noqa: ARG005 - faults have the arguments of what they stand for

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.cli.main import main
from ddpgd.config.schema import Config
from ddpgd.kernels.reference.backend import Reference
from ddpgd.lab import gradcheck
from ddpgd.model.layers import ACTIVATIONS, dense_layers
from ddpgd.model.network import LOSSES

Array = np.ndarray[Any, Any]
SIZES = (9, 7, 7, 7, 5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", ["0", "30", "20,20,20,20"])
def test_networks_are_right(activation: str, loss: str, hidden: str, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in ("0", "1"):
        flags = ["--hidden", hidden, "--activation", activation, "--loss", loss, "--seed", seed]
        assert main(["gradcheck", *flags]) == 0
        *table, verdict = capsys.readouterr().out.splitlines()
        assert len(table) == 1 + 3 * (1 + len([width for width in hidden.split(",") if width != "0"]))
        assert verdict.startswith("gradcheck: all gradients equal finite differences, to ")
        assert float(verdict.rpartition(" ")[2]) < 1e-6


def test_a_file_of_a_run_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.toml").write_text('hidden = [6, 5]\nactivation = "tanh"\nlr = 0.5\n')
    assert main(["gradcheck", "--config", str(tmp_path / "own.toml"), "--loss", "mse"]) == 0
    assert "dense3.weight" in capsys.readouterr().out
    assert main(["gradcheck", "--config", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def last_row_twice(x: Array) -> Array:
    return np.concatenate([x[1:], x[-1:]])


# name -> what is put in place of the gradient by params: (x, dout, dweight, dbias)
BY_PARAMS: dict[str, Callable[[Array, Array, Array, Array], None]] = {
    "twice the weight's": lambda x, dout, dweight, dbias: np.multiply(dweight, 2, out=dweight),
    "the weight's negated": lambda x, dout, dweight, dbias: np.negative(dweight, out=dweight),
    "the weight's 0": lambda x, dout, dweight, dbias: dweight.fill(0),
    "a column of the weight's 0": lambda x, dout, dweight, dbias: dweight[..., 2].fill(0),
    "columns moved": lambda x, dout, dweight, dbias: np.copyto(dweight, np.roll(dweight, 1, axis=-1)),
    "rows moved": lambda x, dout, dweight, dbias: np.copyto(dweight, np.roll(dweight, 1, axis=-2)),
    "a thousandth too large": lambda x, dout, dweight, dbias: np.multiply(dweight, 1.001, out=dweight),
    "the mean over rows": lambda x, dout, dweight, dbias: np.divide(dweight, len(x), out=dweight),
    "the first row left out": lambda x, dout, dweight, dbias: np.copyto(dweight, x[1:].T @ dout[1:]),
    "other rows' inputs": lambda x, dout, dweight, dbias: np.copyto(dweight, last_row_twice(x).T @ dout),
    "the bias's 0": lambda x, dout, dweight, dbias: dbias.fill(0),
    "the bias's negated": lambda x, dout, dweight, dbias: np.negative(dbias, out=dbias),
    "the bias's mean": lambda x, dout, dweight, dbias: np.divide(dbias, len(x), out=dbias),
    "the bias's largest": lambda x, dout, dweight, dbias: np.copyto(dbias, dout.max(axis=0)),
}
# name -> what is put in place of the gradient by inputs: (dout, weight, x, dx)
BY_INPUTS: dict[str, Callable[[Array, Array, Array, Array], None]] = {
    "twice": lambda dout, weight, x, dx: np.multiply(dx, 2, out=dx),
    "negated": lambda dout, weight, x, dx: np.negative(dx, out=dx),
    "no derivative of the activation": lambda dout, weight, x, dx: np.copyto(dx, dout @ weight.T),
    "the derivative of another activation": lambda dout, weight, x, dx: np.copyto(dx, dout @ weight.T * (x > 0)),
    "the weight transposed": lambda dout, weight, x, dx: np.copyto(dx, dout @ weight * (1 - x**2)),
    "a column 0": lambda dout, weight, x, dx: dx[:, 3].fill(0),
    "derivative twice": lambda dout, weight, x, dx: np.multiply(dx, 1 - x**2, out=dx),
}


def found_in(monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[..., None], number: int) -> list[str]:
    """Culprits of a network of tanh whose backward pass has a fault in the layer of this number, from 1."""
    plain = getattr(Reference, name)
    calls: list[int] = []
    # A backward pass goes from the last layer to the first, and the first has no gradient by its inputs.
    per_pass = len(SIZES) - 1 if name == "dense_backward_params" else len(SIZES) - 2

    def wrong(self: Reference, *arguments: Any) -> None:
        plain(self, *arguments)
        calls.append(0)
        if len(SIZES) - 1 - (len(calls) - 1) % per_pass == number:
            if name == "dense_backward_params":
                x, dout, _, dweight, dbias = arguments
                fault(x, dout, dweight[0], dbias[0])
            else:
                dout, (weight,), x, _, _, dx = arguments
                fault(dout, weight, x, dx)

    monkeypatch.setattr(Reference, name, wrong)
    return gradcheck.culprits(gradcheck.check(Config(), dense_layers(SIZES, "tanh")))


@pytest.mark.parametrize("name", BY_PARAMS)
@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_wrong_gradient_by_params_is_found_in_its_layer(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,) = found_in(monkeypatch, "dense_backward_params", BY_PARAMS[name], number)
    tensor = "bias" if "bias" in name else "weight"
    assert told.startswith(f"dense{number}: its gradient by dense{number}.{tensor} is wrong")


@pytest.mark.parametrize("name", BY_INPUTS)
@pytest.mark.parametrize("number", [2, 3])
def test_a_wrong_gradient_by_inputs_is_found_in_its_layer(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,) = found_in(monkeypatch, "dense_backward_input", BY_INPUTS[name], number)
    assert told.startswith(f"dense{number}: its gradient by its inputs is wrong")


@pytest.mark.parametrize("factor", [2, -1, 1.01])
def test_a_wrong_gradient_of_the_loss_is_found(
    factor: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Reference.cross_entropy

    def wrong(
        self: Reference, logits: Array, labels: Array, micro_batch: int, control: Array, dlogits: Array, tails: Array
    ) -> None:
        plain(self, logits, labels, micro_batch, control, dlogits, tails)
        dlogits *= factor

    monkeypatch.setattr(Reference, "cross_entropy", wrong)
    assert main(["gradcheck", "--hidden", "8"]) == 1
    told = capsys.readouterr()
    assert "WRONG" in told.out
    assert told.err.startswith("ddpgd: gradcheck: the loss: its gradient by its logits is wrong")
    assert told.err.count("\n") == 1
