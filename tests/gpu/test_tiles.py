"""Dense layers on a GPU: every tile and cuBLAS equal the formulas, and a micro-batch has the same bits alone and joined."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from ddpgd.kernels.cuda.sources import PRECISIONS
from emulator.dense_cases import Case, Data, Results, data, errors, load, run, to_tf32, uneven

TILES = {"float32": ((16, 8), (16, 16), (32, 32), (64, 64), (128, 128))}
HALF_TILES = TILES["float32"][1:]
KERNELS = [(precision, tile) for precision in PRECISIONS for tile in TILES.get(precision, HALF_TILES)]
# Rows, micro-batch, inputs, outputs: ones, a tile and one more, several slices, and the layers of the networks in benchmarks.
CASES = (
    Case(1, 1, 1, 1, "relu"),
    Case(33, 32, 32, 33, "sigmoid"),
    Case(129, 128, 48, 128, "tanh"),
    Case(128, 128, 784, 128, "relu"),
    Case(256, 128, 128, 10, "identity"),
    Case(1000, 129, 32, 16, "tanh"),
    Case(1024, 1024, 512, 512, "relu"),
    Case(2048, 512, 784, 1000, "identity"),
)
JOINED = (Case(150, 40, 130, 24, "tanh"), Case(1000, 250, 257, 129, "relu"))

over_kernels = pytest.mark.parametrize(("precision", "tile"), KERNELS)
over_precisions = pytest.mark.parametrize("precision", PRECISIONS)


@cache
def dense_of(precision: str) -> Any:
    from ddpgd.kernels.cuda.dense import Dense
    from ddpgd.kernels.cuda.launcher import Launcher

    return Dense(Launcher(precision), precision)


@pytest.fixture
def compute() -> Callable[[str, Case, Data], Results]:
    import cupy

    return lambda precision, case, given: run(cupy, dense_of(precision), case, given)


def force_tile(monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]) -> None:
    """Own kernels alone, of one tile."""
    monkeypatch.setattr("ddpgd.kernels.cuda.dense.BLAS_FROM", 1 << 62)
    monkeypatch.setattr("ddpgd.kernels.cuda.dense.pick_tile", lambda *_: tile)


def assert_same_bits(left: Results, right: Results) -> None:
    for name, one, other in zip(Results._fields, left, right, strict=True):
        assert one.tobytes() == other.tobytes(), f"{name} has other bits"


def representable(given: Data, precision: str) -> Data:
    """`given`, or for tf32 its values rounded: how a library rounds its factors itself is its own affair."""
    if precision != "tf32":
        return given
    return Data(to_tf32(given.x), to_tf32(given.weight), given.bias, to_tf32(given.dout))


def check_joined(compute: Callable[[str, Case, Data], Results], precision: str, case: Case) -> None:
    given = uneven(case, precision)
    joined = compute(precision, case, given)
    for g in range(case.num_micro_batches):
        rows, one = slice(g * case.micro_batch, (g + 1) * case.micro_batch), slice(g, g + 1)
        part = Data(given.x[rows], given.weight, given.bias, given.dout[rows])
        alone = compute(precision, case._replace(num_rows=len(part.x)), part)
        assert_same_bits(Results(joined.out[rows], joined.dweight[one], joined.dbias[one], joined.dx[rows]), alone)


@pytest.mark.parametrize("case", CASES, ids=str)
@over_precisions
def test_every_tile_equals_the_formulas_with_the_same_bits(
    precision: str, case: Case, compute: Callable[[str, Case, Data], Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, first = data(case, precision), None
    for tile in TILES.get(precision, HALF_TILES):
        force_tile(monkeypatch, tile)
        got = compute(precision, case, given)
        if first is None:
            first = got
            found = errors(case, precision, given, got)
            assert max(found.values()) < 1, found
        assert_same_bits(got, first)


@pytest.mark.parametrize("case", JOINED, ids=str)
@over_kernels
def test_a_micro_batch_has_the_same_bits_alone_and_joined(
    precision: str,
    tile: tuple[int, int],
    case: Case,
    compute: Callable[[str, Case, Data], Results],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    force_tile(monkeypatch, tile)
    check_joined(compute, precision, case)


class TestCublas:
    """cuBLAS computes all products, however small."""

    @pytest.fixture(autouse=True)
    def library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if dense_of("float32").products == "own kernels":
            pytest.skip("cuBLAS does not open: pip install nvmath-python")
        monkeypatch.setattr("ddpgd.kernels.cuda.dense.BLAS_FROM", 0)

    @pytest.mark.parametrize("case", CASES, ids=str)
    @over_precisions
    def test_cublas_equals_the_formulas_at_every_call(
        self, precision: str, case: Case, compute: Callable[[str, Case, Data], Results]
    ) -> None:
        given = representable(data(case, precision), precision)
        first = compute(precision, case, given)
        found = errors(case, precision, given, first)
        assert max(found.values()) < 1, found
        assert_same_bits(compute(precision, case, given), first)

    @pytest.mark.parametrize("case", JOINED, ids=str)
    @over_precisions
    def test_cublas_has_the_same_bits_alone_and_joined(
        self, precision: str, case: Case, compute: Callable[[str, Case, Data], Results]
    ) -> None:
        check_joined(compute, precision, case)

    @over_precisions
    def test_cublas_keeps_nan(self, precision: str, compute: Callable[[str, Case, Data], Results]) -> None:
        case = Case(64, 32, 48, 40, "relu")
        given = representable(data(case, precision), precision)
        given.x[3, 5] = 0x7FC0 if precision == "bfloat16" else np.nan
        out = load(compute(precision, case, given).out, precision)
        assert np.isnan(out[3]).all()
        assert np.isfinite(np.delete(out, 3, axis=0)).all()

    @over_precisions
    def test_cublas_in_a_graph_has_the_bits_of_a_call(self, precision: str) -> None:
        import cupy

        dense, case = dense_of(precision), Case(256, 64, 96, 48, "relu")
        launch, given = dense._launch, uneven(case, precision)
        with launch.stream:
            x, weight, bias = (cupy.asarray(array) for array in (given.x, given.weight, given.bias))
            outs = [cupy.zeros((case.num_rows, case.num_outputs), given.x.dtype) for _ in range(2)]
            replay = launch.capture(lambda: dense.forward(x, weight, bias, "relu", case.micro_batch, outs[0]))
            replay()
            dense.forward(x, weight, bias, "relu", case.micro_batch, outs[1])
        launch.stream.synchronize()
        captured, called = (cupy.asnumpy(out) for out in outs)
        assert captured.any()
        np.testing.assert_array_equal(captured, called)
