"""Dense layers: formulas in float64, the same bits for every tile and however micro-batches are joined, planted faults."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ddpgd.kernels.cuda import sources
from emulator import dense_cases, fake_nvmath
from emulator.dense_cases import Case, Data, Results, compile_ahead, data, device, errors, run, sliced_sum, uneven

PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
TILES = ((16, 8), (16, 16), (32, 32), (64, 64), (128, 128))
KERNELS = [(p, tile) for p in PRECISIONS for tile in TILES if p == "float32" or tile[1] > 8]
# Rows, micro-batch, inputs, outputs: ones, a tile and one less or more, several slices, pitches of whole 16, 8, 4 and 2 bytes.
CASES = (
    Case(1, 1, 1, 1, "relu"),
    Case(1, 1, 784, 10, "identity"),
    Case(31, 31, 17, 1, "tanh"),
    Case(32, 32, 33, 32, "sigmoid"),
    Case(33, 32, 32, 33, "relu"),
    Case(127, 31, 10, 17, "tanh"),
    Case(128, 128, 128, 10, "relu"),
    Case(129, 128, 48, 128, "sigmoid"),
    Case(33, 33, 784, 33, "relu"),
    Case(33, 32, 20, 12, "relu"),
    Case(1000, 1000, 10, 17, "identity"),
    Case(1000, 129, 32, 16, "tanh"),
)


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    compile_ahead((sources.joined("dense.cu"), precision) for precision in PRECISIONS)
    with device() as found:
        yield found


@pytest.fixture(scope="module")
def dense_of(modules: SimpleNamespace) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def get(precision: str) -> Any:
        if precision not in made:
            made[precision] = modules.cuda_dense.Dense(modules.cuda_launch.Launcher(precision), precision)
        return made[precision]

    return get


def force_tile(monkeypatch: pytest.MonkeyPatch, modules: SimpleNamespace, tile: tuple[int, int]) -> None:
    monkeypatch.setattr(modules.cuda_dense, "pick_tile", lambda *_: tile)


def assert_same_bits(left: Results, right: Results) -> None:
    for name, one, other in zip(Results._fields, left, right, strict=True):
        assert one.tobytes() == other.tobytes(), f"{name} has other bits"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_formulas_with_every_tile(
    case: Case,
    precision: str,
    modules: SimpleNamespace,
    dense_of: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = data(case, precision)
    first = run(modules.cupy, dense_of(precision), case, given)
    found = errors(case, precision, given, first)
    assert max(found.values()) < 1, found
    for tile in (tile for kind, tile in KERNELS if kind == precision):
        force_tile(monkeypatch, modules, tile)
        assert_same_bits(run(modules.cupy, dense_of(precision), case, given), first)


@pytest.mark.parametrize(("precision", "tile"), KERNELS)
def test_a_micro_batch_has_the_same_bits_alone_and_beside_others(
    precision: str,
    tile: tuple[int, int],
    modules: SimpleNamespace,
    dense_of: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case(150, 40, 130, 24, "tanh")
    given = uneven(case, precision)
    dense = dense_of(precision)
    force_tile(monkeypatch, modules, tile)
    joined = run(modules.cupy, dense, case, given)
    for other_tile in (tile, (16, 16) if tile[0] > 16 else (64, 64)):
        force_tile(monkeypatch, modules, other_tile)
        for g in range(case.num_micro_batches):
            rows = slice(g * case.micro_batch, (g + 1) * case.micro_batch)
            part = Data(given.x[rows], given.weight, given.bias, given.dout[rows])
            alone = run(modules.cupy, dense, case._replace(num_rows=len(part.x)), part)
            one = slice(g, g + 1)
            assert_same_bits(Results(joined.out[rows], joined.dweight[one], joined.dbias[one], joined.dx[rows]), alone)


def test_float32_sums_are_slices_of_fused_multiply_adds_in_ascending_order(
    modules: SimpleNamespace, dense_of: Callable[[str], Any]
) -> None:
    case = Case(75, 40, 137, 21, "identity")
    given = uneven(case, "float32")
    given.x[:40, 0], given.dout[:40, 0] = 1e-30, -1e-30  # whose products add up to -0
    got = run(modules.cupy, dense_of("float32"), case, given)
    assert got.out.tobytes() == (sliced_sum(given.x, given.weight) + given.bias).tobytes()
    assert got.dx.tobytes() == sliced_sum(given.dout, given.weight.T).tobytes()
    for g, rows in enumerate((slice(0, 40), slice(40, 75))):
        x, dout = given.x[rows], given.dout[rows]
        assert got.dweight[g].tobytes() == sliced_sum(x.T, dout).tobytes()
        assert got.dbias[g].tobytes() == sliced_sum(np.ones((1, len(x)), np.float32), dout).tobytes()


def test_an_infinity_or_nan_reaches_what_it_enters_and_nothing_else(
    modules: SimpleNamespace, dense_of: Callable[[str], Any]
) -> None:
    case = Case(40, 20, 33, 17, "relu")
    for precision in ("float32", "float16"):
        given = data(case, precision)
        given.x[3, 5] = np.nan
        given.dout[25, 4] = np.inf
        got = run(modules.cupy, dense_of(precision), case, given)
        assert np.isnan(got.out[3]).all()
        assert np.isfinite(np.delete(got.out, 3, axis=0)).all()
        assert np.isnan(got.dweight[0, 5]).all()
        assert np.isfinite(got.dweight[1, :, np.arange(17) != 4]).all()
        assert np.isinf(got.dbias[1, 4])
        assert np.isfinite(got.dbias[0]).all()


def test_large_and_small_shapes_get_large_and_small_tiles(modules: SimpleNamespace) -> None:
    pick = modules.cuda_dense.pick_tile
    assert pick("float32", [(128, 128)]) == (16, 8)
    assert pick("float16", [(128, 128)]) == (16, 16)
    assert pick("float32", [(784, 128)]) == (32, 32)
    assert pick("float32", [(60000, 10)]) == (16, 16)
    assert pick("tf32", [(16384, 128)]) == (128, 128)
    assert pick("float32", [(128, 2500)]) == (64, 64), "80 thread blocks in one wave, not 316 in three"


@pytest.mark.parametrize(("precision", "tile"), KERNELS)
def test_shared_memory_fits_every_device_of_the_precision(
    precision: str, tile: tuple[int, int], modules: SimpleNamespace
) -> None:
    for product in modules.cuda_dense.LAYOUTS:
        limit = 64 * 1024 if precision == "float32" else 99 * 1024
        assert 0 < modules.cuda_dense.shared_bytes(product, tile, precision) <= limit


class TestBlas:
    """The library's products behind the same face."""

    @pytest.fixture(params=[True, False], ids=["cublasLt", "cuBLAS alone"])
    def library(
        self, request: pytest.FixtureRequest, modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[fake_nvmath.Library]:
        with fake_nvmath.install(has_lt=request.param) as library:
            library.has_lt = request.param
            monkeypatch.setattr(modules.cuda_dense, "BLAS_FROM", 0)
            yield library

    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "identity"])
    def test_equals_the_formulas(
        self,
        precision: str,
        activation: str,
        modules: SimpleNamespace,
        library: fake_nvmath.Library,
        dense_of: Callable[[str], Any],
    ) -> None:
        case = Case(70, 33, 19, 37, activation)
        given = data(case, precision)
        dense = modules.cuda_dense.Dense(modules.cuda_launch.Launcher(precision), precision)
        run(modules.cupy, dense, case, given)  # asks for algorithms, and tries them
        library.calls.clear()
        got = run(modules.cupy, dense, case, given)
        found = errors(case, precision, given, got)
        assert max(found.values()) < 1, found
        products = [(name, value) for name, value in library.calls if name in ("gemm", "matmul")]
        assert len(products) == 9, "one a product and micro-batch"
        in_float32 = activation == "identity" or (activation == "relu" and precision in ("float32", "tf32"))
        fused = 3 if library.has_lt and in_float32 else 0
        assert [name for name, _ in products].count("matmul") == fused
        compute = fake_nvmath.ComputeType.COMPUTE_32F_FAST_TF32 if precision == "tf32" else 68
        assert {value for _, value in products} == {compute}
        own = run(modules.cupy, dense_of(precision), case, given)
        assert got.dbias.tobytes() == own.dbias.tobytes()

    def test_is_set_up_for_the_same_bits_at_every_call(
        self, modules: SimpleNamespace, library: fake_nvmath.Library
    ) -> None:
        launch = modules.cuda_launch.Launcher("float32")
        modules.cuda_dense.Dense(launch, "float32")
        assert library.calls == [("stream", launch.stream.ptr), ("workspace", 32 << 20), ("math", 16), ("atomics", 0)]

    def test_is_captured(self, modules: SimpleNamespace, library: fake_nvmath.Library) -> None:
        case = Case(40, 20, 8, 16)
        given = data(case, "float32")
        launch = modules.cuda_launch.Launcher("float32")
        dense = modules.cuda_dense.Dense(launch, "float32")
        cupy = modules.cupy
        x, weight, bias = cupy.array(given.x), cupy.array(given.weight), cupy.array(given.bias)
        out, again = cupy.zeros((40, 16), np.float32), cupy.zeros((40, 16), np.float32)
        replay = launch.capture(lambda: dense.forward(x, weight, bias, "relu", 20, out))
        out.fill(0)
        replay()
        launched = launch.num_launches
        dense.forward(x, weight, bias, "relu", 20, again)
        assert launch.num_launches - launched == (2 if library.has_lt else 3), "and one for all biases and relus"
        assert out.get().tobytes() == again.get().tobytes()
        assert library.stream == launch.stream.ptr

    @pytest.mark.parametrize("samples", [13, 20])
    @pytest.mark.parametrize("how", ["refused", "failing"])
    def test_has_the_same_bits_where_some_micro_batches_have_no_kernel(
        self, how: str, samples: int, modules: SimpleNamespace, library: fake_nvmath.Library
    ) -> None:
        """The last, which has another shape, or all but the last; what was made for them is destroyed."""
        case = Case(53, 20, 24, 16)
        given = data(case, "float32")
        results = []
        for without in (set(), {samples}):
            setattr(library.lt, how, without)
            dense = modules.cuda_dense.Dense(modules.cuda_launch.Launcher("float32"), "float32")
            before = len(library.lt.made)
            results.append(run(modules.cupy, dense, case, given))
            kept = (2 - len(without)) if library.has_lt else 0
            assert len(library.lt.made) - before == 4 * kept, "an operation and three matrices of each"
        assert results[0].out.tobytes() == results[1].out.tobytes()

    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("hides_nan", [False, True])
    def test_a_nan_stays_one_whatever_the_library_does(
        self, precision: str, hides_nan: bool, modules: SimpleNamespace, library: fake_nvmath.Library
    ) -> None:
        library.lt.hides_nan = hides_nan
        case = Case(40, 20, 16, 24)
        given = data(case, precision)
        given.x[3, 5] = 0x7FC0 if precision == "bfloat16" else np.nan
        dense = modules.cuda_dense.Dense(modules.cuda_launch.Launcher(precision), precision)
        out = dense_cases.load(run(modules.cupy, dense, case, given).out, precision)
        assert np.isnan(out[3]).all()
        assert np.isfinite(np.delete(out, 3, axis=0)).all()

    def test_algorithms_are_asked_for_once_and_whatever_the_addresses(
        self, modules: SimpleNamespace, library: fake_nvmath.Library
    ) -> None:
        case = Case(70, 33, 18, 22)
        dense = modules.cuda_dense.Dense(modules.cuda_launch.Launcher("float32"), "float32")
        for seed in (0, 1):
            run(modules.cupy, dense, case, data(case, "float32", seed))
        if not library.has_lt:
            assert library.lt.asked == []
            return
        assert len(library.lt.asked) == 2, "33 rows, and the last 4"
        for asked in library.lt.asked:
            assert asked["REDUCTION_SCHEME_MASK"] == fake_nvmath.ReductionScheme.COMPUTE_TYPE
            assert [asked[f"MIN_ALIGNMENT_{letter}_BYTES"] for letter in "ABCD"] == [8, 8, 8, 8], (
                "of rows of 18 and 22 numbers"
            )

    def test_small_products_stay_with_own_kernels(
        self, modules: SimpleNamespace, library: fake_nvmath.Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(modules.cuda_dense, "BLAS_FROM", 20 * 8 * 16 + 1)
        dense = modules.cuda_dense.Dense(modules.cuda_launch.Launcher("float32"), "float32")
        for num_rows in (20, 2000):
            case = Case(num_rows, 20, 8, 16)
            run(modules.cupy, dense, case, data(case, "float32"))
        assert not {"gemm", "matmul"} & dict(library.calls).keys()
