"""Unit tests compute as ranks do: with BLAS on one thread, because its bits depend on the number."""

from collections.abc import Iterator

import hypothesis
import pytest
from threadpoolctl import threadpool_limits

from cores import pytest_configure  # noqa: F401 - a hook
from ddpgd.data import synthetic
from runs import digits

# The same examples every time, and none against the clock: the machine may be busy.
hypothesis.settings.register_profile("ddpgd", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ddpgd")


@pytest.fixture(autouse=True, scope="session")
def one_blas_thread() -> Iterator[None]:
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples that --data synthetic then names."""
    monkeypatch.setattr(synthetic, "make", digits)
