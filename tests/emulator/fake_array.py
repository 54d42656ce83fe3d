"""The arrays of the fake CuPy: NumPy views of device memory that refuse what CuPy refuses."""

# ruff: noqa: ARG001, ARG002  signatures are CuPy's

import ctypes
import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import fake_device
from .fake_stream import current_device, get_current_stream
from .launcher import Memory


class ndarray:  # noqa: N801  CuPy's name
    """An array of the device. It has no arithmetic: a binding computes in kernels."""

    def __init__(self, view: "np.ndarray[Any, Any]", memory: Memory, base: "ndarray | None" = None) -> None:
        self._view = view
        self._memory = memory
        self.base = base
        self.shape, self.dtype, self.strides, self.ndim = view.shape, view.dtype, view.strides, view.ndim
        self.size, self.nbytes, self.itemsize = view.size, view.nbytes, view.itemsize
        self.flags = SimpleNamespace(
            c_contiguous=view.flags.c_contiguous, f_contiguous=view.flags.f_contiguous, owndata=base is None
        )
        self.data = SimpleNamespace(ptr=view.__array_interface__["data"][0], device_id=memory.device)
        self.device = fake_device.Device(memory.device)
        self.__cuda_array_interface__ = view.__array_interface__ | {"version": 3, "stream": None}

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __len__(self) -> int:
        return len(self._view)

    def __float__(self) -> float:
        return float(self.get().item())

    def __int__(self) -> int:
        return int(self.get().item())

    def __bool__(self) -> bool:
        return bool(self.get().item())

    def item(self) -> Any:
        return self.get().item()

    def __repr__(self) -> str:
        return f"<fake cupy array {self.dtype}{self.shape}>"

    def _part(self, view: "np.ndarray[Any, Any]") -> "ndarray":
        return ndarray(view, self._memory, self.base if self.base is not None else self)

    def _select(self, key: Any) -> "np.ndarray[Any, Any]":
        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or part is Ellipsis or isinstance(part, int | np.integer | slice) for part in parts):
            raise TypeError("the fake CuPy knows basic indices only")
        selected: np.ndarray[Any, Any] = self._view[parts if Ellipsis in parts else (*parts, Ellipsis)]
        return selected

    def __getitem__(self, key: Any) -> "ndarray":
        return self._part(self._select(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        assign(self._part(self._select(key)), value)

    def fill(self, value: Any) -> None:
        assign(self, value)

    def reshape(self, *shape: Any, order: str = "C") -> "ndarray":
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], int | np.integer) else shape
        view = self._view.reshape(wanted)
        if view.size and not np.shares_memory(view, self._view):
            raise ValueError("this reshape copies")
        return self._part(view)

    def ravel(self) -> "ndarray":
        return self.reshape(-1)

    def view(self, dtype: Any) -> "ndarray":
        return self._part(self._view.view(dtype))

    @property
    def T(self) -> "ndarray":  # noqa: N802  CuPy's name
        return self._part(self._view.T)

    def set(self, arr: Any, stream: Any = None) -> None:
        """From the host. Pageable memory is copied at once, so that changing it later changes nothing."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        queue = stream or get_current_stream()
        queue.refuse_capture("copy from the host")
        if not (arr.flags.c_contiguous and fake_device.is_pinned(arr.ctypes.data, arr.nbytes)):
            arr = arr.copy()
        queue.enqueue(lambda: np.copyto(self._view, arr))  # holds the array, because NumPy cannot survive a fault

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        """To the host."""
        queue = stream or get_current_stream()
        queue.refuse_capture("copy to the host")
        if out is None:
            out = np.empty(self.shape, self.dtype)
        elif not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        elif out.dtype != self.dtype:
            raise TypeError(f"{self.dtype} array cannot be obtained from {out.dtype} array")
        elif out.shape != self.shape:
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        elif not out.flags.c_contiguous:
            raise ValueError("the output array must be C-contiguous")
        if not self.flags.c_contiguous:
            with queue:  # as CuPy, which copies in a `with` that forgets the stream in use
                pass
        queue.enqueue(lambda: np.copyto(out, self._view))
        if blocking or not fake_device.is_pinned(out.ctypes.data, out.nbytes):
            queue.drain()
        return out

    def copy(self) -> "ndarray":
        made = empty(self.shape, self.dtype)
        made[...] = self
        return made


def assign(target: ndarray, value: Any) -> None:
    """A scalar or another array of the device, cast as CuPy casts."""
    if isinstance(value, ndarray):
        get_current_stream().enqueue(lambda: np.copyto(target._view, value._view, casting="unsafe"))
        return
    if isinstance(value, np.ndarray) and value.ndim:
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    scalar = value.item() if isinstance(value, np.ndarray) else value
    if not isinstance(scalar, int | float | np.generic):
        raise TypeError(f"a {type(value).__name__} cannot be put into an array of the device")
    get_current_stream().enqueue(lambda: np.copyto(target._view, scalar, casting="unsafe"))


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """All ones: NaN, or -1, so that what nobody wrote shows."""
    get_current_stream().refuse_capture("allocation")
    shape = (int(shape),) if isinstance(shape, int | np.integer) else tuple(int(length) for length in shape)
    dtype = np.dtype(dtype)
    if dtype.kind not in "?biuf":
        raise ValueError(f"Unsupported dtype {dtype}")
    nbytes = math.prod(shape) * dtype.itemsize
    memory = Memory(nbytes, current_device())
    host = (ctypes.c_uint8 * max(1, nbytes)).from_address(memory.ptr) if nbytes else bytearray(1)
    return ndarray(np.ndarray(shape, dtype, buffer=host), memory)


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    made = empty(shape, dtype)
    made.fill(0)
    return made


def array(values: Any, dtype: Any = None, copy: bool = True) -> ndarray:
    if isinstance(values, ndarray):
        made = empty(values.shape, dtype or values.dtype)
        made[...] = values
        return made
    host = np.asarray(values, dtype)
    made = empty(host.shape, host.dtype)
    made.set(host)
    return made


def asarray(values: Any, dtype: Any = None) -> ndarray:
    same = isinstance(values, ndarray) and dtype in {None, values.dtype}
    return values if same else array(values, dtype)


def asnumpy(values: Any, stream: Any = None, order: str = "C", out: Any = None) -> Any:
    if isinstance(values, ndarray):
        return values.get(stream=stream, out=out)
    return np.asarray(values)


def ascontiguousarray(values: ndarray) -> ndarray:
    return values if values.flags.c_contiguous else values.copy()


def copyto(dst: ndarray, src: Any) -> None:
    if not isinstance(dst, ndarray):
        raise TypeError("dst must be cupy.ndarray")
    dst[...] = src
