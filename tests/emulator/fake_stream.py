"""Streams, events and graphs of the fake CuPy. Work runs at once; lazily, only when something waits for it.

In a graph of several streams those that others wait for run as early as their own waits allow; lazily, as late. A message to
another process is work that ends later: what is behind it on its stream waits, other streams go on. Whoever waits for a
stream on which nothing goes on for `HANG_S` seconds is told what each stream waits for.
"""

# ruff: noqa: ARG002  signatures are CuPy's

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

from .fake_graph import Captured, Mark, Replay, Test

settings = SimpleNamespace(num_devices=1, order="forward", lazy=False, num_multiprocessors=4)
current = threading.local()
lock = threading.RLock()
HANG_S = float(os.environ.get("DDPGD_EMULATOR_HANG_S", "240"))
LOOK_S = 1e-4


class CUDAError(RuntimeError):
    """The error of a call to CUDA; `status` is its code."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class CUDARuntimeError(CUDAError):
    """From the runtime."""


class CUDADriverError(CUDAError):
    """From the driver, which launches and loads."""


def order() -> str:
    return os.environ.get("DDPGD_EMULATOR_ORDER", str(settings.order))


def current_device() -> int:
    return getattr(current, "device", 0)


def set_device(device: int) -> None:
    if not 0 <= device < settings.num_devices:
        raise CUDARuntimeError(
            101, f"cudaErrorInvalidDevice: invalid device ordinal {device} of {settings.num_devices}"
        )
    current.device = device


class Stream:
    """A queue of work. `enqueue` is the only way in."""

    null: "Stream"
    by_ptr: ClassVar["dict[int, Stream]"] = {}
    ptrs = itertools.count(1 << 20, 16)

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int = 0) -> None:
        self.is_null = null or ptds
        self.is_non_blocking = non_blocking
        self.priority = priority
        self.ptr = 0 if self.is_null else next(self.ptrs)
        self.device_id = -1 if self.is_null else current_device()
        self.captured: Captured | None = None
        self.pending: deque[tuple[Callable[[], None], Any]] = deque()
        self.by_ptr.setdefault(self.ptr, self)

    def __enter__(self) -> "Stream":
        entered().append((current_device(), self))
        return self.use()

    def __exit__(self, *_: object) -> None:
        """As CuPy does: back to the stream of the `with` around this one, else to the null stream; `use` is forgotten."""
        device = entered().pop()[0]
        streams()[device] = next((stream for place, stream in reversed(entered()) if place == device), Stream.null)

    def use(self) -> "Stream":
        if self.device_id not in {-1, current_device()}:
            raise RuntimeError(f"a stream of device {self.device_id} used on device {current_device()}")
        streams()[current_device()] = self
        return self

    def enqueue(self, work: Callable[[], Test | None], keep: Any = None) -> None:
        """Work at the end of the queue; `keep` lives until it has run, but a graph keeps nothing alive.

        Work that goes on after its call returns what says whether it has ended.
        """
        if self.device_id not in {-1, current_device()}:
            raise CUDARuntimeError(400, f"work for device {current_device()} on a stream of device {self.device_id}")
        others = [] if self.is_non_blocking else [s for s in list(self.by_ptr.values()) if not s.is_non_blocking]
        if self.is_null and any(stream.captured is not None for stream in others):
            raise CUDARuntimeError(906, "cudaErrorStreamCaptureImplicit: the null stream used while another captures")
        if self.captured is not None:
            self.captured.add(self, work)
            return
        # The null stream waits for all blocking streams, and each of them for it.
        for stream in others:
            if stream is not self and (self.is_null or stream.is_null):
                stream.drain()
        self.pending.append((work, keep))
        if not settings.lazy:
            self.advance()

    def drain(self, mark: "Mark | None" = None) -> None:
        """Runs what is queued, and waits for its end; with a mark, only until that is passed."""
        with lock:
            since = time.monotonic()
            while not self.advance(mark):
                if any(stream.step() for stream in list(self.by_ptr.values()) if stream.pending):
                    since = time.monotonic()
                elif time.monotonic() - since > HANG_S:
                    raise CUDARuntimeError(702, f"cudaErrorLaunchTimeout: {waiting(list(self.by_ptr.values()))}")
                else:
                    time.sleep(LOOK_S)

    def advance(self, mark: "Mark | None" = None) -> bool:
        """Runs what is queued as far as it goes; returns whether that is to the end, or to the mark."""
        with lock:
            while self.pending and not (mark and mark.passed):
                if not self.step():
                    return False
        return True

    def step(self) -> bool:
        """Runs the first work of the queue; returns whether it has ended. Work that fails is gone from the queue."""
        work, keep = self.pending[0]  # `keep` is what the work needs until it is done
        try:
            test = work()
            has_ended = test is None or test()
        except BaseException:
            self.pending.popleft()
            raise
        if not has_ended:
            assert test is not None
            self.pending[0] = (lambda: test), keep
            return False
        self.pending.popleft()
        return True

    def refuse_capture(self, what: str) -> None:
        if self.captured is not None:
            text = f"operation not permitted when stream is capturing: {what}"
            raise CUDARuntimeError(900, f"cudaErrorStreamCaptureUnsupported: {text}")

    def synchronize(self) -> None:
        self.refuse_capture("synchronize")
        self.drain()

    @property
    def done(self) -> bool:
        """Each question brings the queue one piece of work further."""
        self.refuse_capture("query")
        with lock:
            if self.pending:
                self.step()
        return not self.pending

    def record(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        mark = event.mark
        if mark.captured is None:
            if self.captured is not None and mark.stream is not None:
                raise CUDARuntimeError(905, "cudaErrorStreamCaptureIsolation: an event from before the capture")
            self.enqueue(lambda: mark.reached)
        elif mark.captured is not mark.stream.captured:
            raise CUDARuntimeError(400, "cudaErrorInvalidResourceHandle: an event of a capture that has ended")
        elif self.captured not in (None, mark.captured):
            raise CUDARuntimeError(902, "cudaErrorStreamCaptureMerge: an event of another capture")
        else:
            self.captured = mark.captured
            self.captured.wait(self, mark)

    def is_capturing(self) -> bool:
        return self.captured is not None

    def begin_capture(self, mode: int | None = None) -> None:
        if self.is_null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.captured is not None:
            raise CUDARuntimeError(901, "cudaErrorIllegalState: the stream captures already")
        self.captured = Captured(self)

    def end_capture(self) -> "Graph":
        captured = self.captured
        if captured is None:
            raise CUDARuntimeError(901, "cudaErrorIllegalState: the stream does not capture")
        if captured.origin is not self:
            raise CUDARuntimeError(903, "cudaErrorStreamCaptureUnmatched: the capture began on another stream")
        for stream in captured.queues:
            stream.captured = None
        if not captured.is_joined():
            raise CUDARuntimeError(904, "cudaErrorStreamCaptureUnjoined: the stream does not wait for all it started")
        return Graph(captured)


Stream.null = Stream(null=True)


def reset(num_devices: int, order: str, lazy: bool, num_multiprocessors: int = 4) -> None:
    """New devices, without the streams and unfinished work of the old."""
    vars(settings).update(num_devices=num_devices, order=order, lazy=lazy, num_multiprocessors=num_multiprocessors)
    vars(current).clear()
    Stream.by_ptr.clear()
    Stream.null = Stream(null=True)


class Graph:
    """Captured work, run again as it was."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured

    def launch(self, stream: Stream | None = None) -> None:
        (stream or get_current_stream()).enqueue(lambda: Replay(self.captured, settings.lazy).advance, keep=self)

    def upload(self, stream: Stream | None = None) -> None:
        (stream or get_current_stream()).refuse_capture("upload of a graph")


class Event:
    """A moment in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.disable_timing = disable_timing
        self.mark = Mark(None)

    def record(self, stream: Stream | None = None) -> None:
        queue = stream or get_current_stream()
        if queue.captured is not None:
            self.mark = queue.captured.record(queue)
            return
        self.mark = Mark(queue)
        queue.enqueue(self.mark.pass_by)

    def synchronize(self) -> None:
        if self.mark.stream is not None:
            self.mark.stream.refuse_capture("synchronize with an event")
        self.mark.reach()

    @property
    def done(self) -> bool:
        return self.mark.passed or (self.mark.stream is not None and self.mark.stream.done) or self.mark.passed


def get_elapsed_time(start: Event, end: Event) -> float:
    if start.disable_timing or end.disable_timing or start.mark.time_s is None or end.mark.time_s is None:
        raise CUDARuntimeError(400, "cudaErrorInvalidResourceHandle: an event without a time")
    return 1000 * (end.mark.time_s - start.mark.time_s)


def waiting(queues: list[Stream]) -> str:
    """Says which streams cannot go on."""
    stuck = [f"stream {stream.ptr} of {len(stream.pending)} pieces of work" for stream in queues if stream.pending]
    return f"streams wait in a circle, or for a rank that has ended: {', '.join(stuck)}"


def streams() -> dict[int, Stream]:
    """This thread's current stream of each device."""
    if not hasattr(current, "streams"):
        current.streams = {}
    found: dict[int, Stream] = current.streams
    return found


def entered() -> list[tuple[int, Stream]]:
    """The streams of this thread's `with` blocks and their devices, the innermost last."""
    if not hasattr(current, "entered"):
        current.entered = []
    found: list[tuple[int, Stream]] = current.entered
    return found


def get_current_stream(device_id: int = -1) -> Stream:
    return streams().get(current_device() if device_id == -1 else device_id, Stream.null)
