"""Faults planted in the kernels of updates of matrices are found."""

import numpy as np
import pytest

from ddpgd.kernels.words import CONTROL_WORDS, Control
from matrix_laws import matrices, wanted_matrix_update

from .planting import Device, Fault, order_that_shows, run


def compare(_: Device) -> None:
    """A wide matrix and a tall one, applied, and one that is not, whose gradient is not finite."""
    from ddpgd.kernels.cuda.backend import Cuda

    ops, rng = Cuda(0, "bfloat16"), np.random.default_rng(5)
    for shape, apply in (((3, 367), 1), ((367, 3), 1), ((5, 5), 0)):
        arrays = [array.astype(np.float32) for array in matrices(rng, shape)]
        if not apply:
            arrays[1][...] = np.nan
        control = np.zeros(CONTROL_WORDS)
        control[[Control.LR, Control.SCALE, Control.APPLY]] = 0.5, 0.25, apply
        params, grads, exp_avg = (ops.from_host(array) for array in arrays)
        weights = ops.round_weights(params.reshape(-1)).reshape(shape)
        ops.update_matrix(params, grads, exp_avg, ops.from_host(control), 0.125, 0.95, weights)
        wanted = wanted_matrix_update(*arrays, 0.125, 0.5, 0.25) if apply else (arrays[0], arrays[2])
        for array, expected in zip((params, exp_avg), wanted, strict=True):
            np.testing.assert_allclose(ops.to_host(array), expected, rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(
            ops.to_host(weights), ops.to_host(ops.round_weights(params.reshape(-1)).reshape(shape))
        )


FAULTS = (
    Fault("the momentum is not kept", compare, "store<4>(average, exp_avg, first, n);", ";"),
    Fault("the momentum of a gradient that is not applied", compare, "if (control[APPLY] != 0) store", "store"),
    Fault(
        "momentum without Nesterov's step",
        compare,
        "__fadd_rn(__fmul_rn(keep, average.at[j]), g);\n    }",
        "average.at[j];\n    }",
    ),
    Fault("the whole gradient", compare, "take = (1 - beta) * control[SCALE]", "take = control[SCALE]"),
    Fault("unscaled gradients", compare, "(1 - beta) * control[SCALE]", "(1 - beta)"),
    Fault("the square of the norm", compare, "sqrtf(*squared_norm)", "*squared_norm"),
    Fault("no diagonal", compare, "__fadd_rn(sum, a) : sum", "sum : sum"),
    Fault("a diagonal that is shifted", compare, "at % (side + 1LL)", "at % (side + 2LL)"),
    Fault("gram and square interchanged", compare, "__fmul_rn(c, square[at])", "__fmul_rn(c, gram[at])"),
    Fault("no factor", compare, "rate = control[LR] * factor", "rate = control[LR]"),
    Fault("decay without the learning rate", compare, "decay = control[LR] * weight_decay", "decay = weight_decay"),
    Fault("no decay", compare, "if (weight_decay != 0)", "if (false)"),
    Fault("always applied", compare, "first >= n || control[APPLY] == 0", "first >= n"),
    Fault("weights that do not follow", compare, "if (weights != nullptr) store", "if (false) store"),
    Fault("weights of before", compare, "to_value(param.at[j]);", "to_value(param.at[j] + change);"),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_that_shows(fault, monkeypatch), "in no order"


def test_the_kernels_as_they_are_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for order in ("forward", "interleaved:3"):
        run(compare, order, monkeypatch)
