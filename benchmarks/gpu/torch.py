"""PyTorch as a contestant: the same step eager, in a CUDA graph, and compiled.

float32 and tf32 by `set_float32_matmul_precision`; 16 bits by autocast over float32 params, as is customary. The order
of an epoch is drawn on the device. Not in its step: the norm of the gradient and the look whether it is finite.
"""

from typing import Any

import torch
from torch.nn import functional

from benchmarks.gpu.cases import LOSS_SCALE, LR, MOMENTUM, STEPS_AT_ONCE, Case
from benchmarks.gpu.clock import Clock
from ddpgd.kernels.device_ops import Array
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def facts() -> dict[str, Any]:
    on_gpu = DEVICE.type == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    return {"device": name, "PyTorch": torch.__version__, "its CUDA": torch.version.cuda}


class Network(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """From the order of the samples to the mean loss of the step that `position` is at."""

    def __init__(self, case: Case, images: Array, labels: Array) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = []
        for k, n in zip(case.sizes, case.sizes[1:], strict=False):
            layers += [torch.nn.Linear(k, n), torch.nn.ReLU()]
            torch.nn.init.kaiming_uniform_(layers[-2].weight, nonlinearity="relu")
            torch.nn.init.zeros_(layers[-2].bias)
        self.layers = torch.nn.Sequential(*layers[:-1])
        self.register_buffer("images", torch.tensor(images))
        self.register_buffer("labels", torch.tensor(labels, dtype=torch.int64))
        self.register_buffer("order", torch.arange(len(labels)))
        self.register_buffer("position", torch.arange(case.rows))
        self.half = HALVES.get(case.precision)

    def forward(self) -> torch.Tensor:
        indices = self.order[self.position]
        x = self.images[indices].to(torch.float32).mul_(1 / (255 * PIXEL_STD)).sub_(PIXEL_MEAN / PIXEL_STD)
        with torch.autocast(DEVICE.type, dtype=self.half, enabled=self.half is not None, cache_enabled=False):
            return functional.cross_entropy(self.layers(x), self.labels[indices])


class Eager:
    """One step after another from Python. `compile` of torch may stand before the loss."""

    steps_at_once = 1

    def __init__(self, case: Case, images: Array, labels: Array, compile_mode: str | None = None) -> None:
        torch.set_float32_matmul_precision("highest" if case.precision == "float32" else "high")
        self._network = Network(case, images, labels).to(DEVICE)
        self._loss_of = torch.compile(self._network, mode=compile_mode) if compile_mode else self._network
        self._scale = LOSS_SCALE if case.precision == "float16" else 1.0
        fused = {"fused": True} if DEVICE.type == "cuda" else {}
        lr = LR / self._scale
        self._optimizer = torch.optim.SGD(self._network.parameters(), lr=lr, momentum=MOMENTUM, **fused)
        self._rows = case.rows
        self._steps_per_epoch = len(labels) // case.rows
        self._at = 0
        self._prepare()
        self.run(1)
        self.first_loss = self.loss()

    def run(self, steps: int) -> None:
        while steps:
            if self._at == self._steps_per_epoch:
                network = self._network
                torch.randperm(len(network.order), out=network.order)
                network.position.sub_(self._at * self._rows)
                self._at = 0
            now = min(steps, self._steps_per_epoch - self._at)
            self._run_steps(now)
            self._at += now
            steps -= now
        synchronize()

    def loss(self) -> float:
        return float(self._loss.item())

    def _prepare(self) -> None:
        pass

    def _run_steps(self, steps: int) -> None:
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss_of()
        (loss * self._scale if self._scale != 1.0 else loss).backward()
        self._optimizer.step()
        self._network.position.add_(self._rows)
        self._loss = loss.detach()


class Graphed(Eager):
    """Whole steps in CUDA graphs: several in one, and one alone for the rest of an epoch."""

    def _prepare(self) -> None:
        if DEVICE.type != "cuda":
            raise RuntimeError("a CUDA graph needs a GPU")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._step()
                self._network.position.sub_(self._rows)
        torch.cuda.current_stream().wait_stream(stream)
        self._graphs = {count: self._capture(count) for count in (STEPS_AT_ONCE, 1)}

    def _capture(self, steps: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(steps):
                self._step()
        return graph, self._loss

    def _run_steps(self, steps: int) -> None:
        for count, (graph, loss) in self._graphs.items():
            for _ in range(steps // count):
                graph.replay()
                self._loss = loss
            steps %= count


def make(key: str, case: Case, images: Array, labels: Array) -> Eager:
    kind, mode = {
        "torch-eager": (Eager, None),
        "torch-graph": (Graphed, None),
        "compiled": (Eager, "reduce-overhead"),
        "compiled-graph": (Graphed, "max-autotune-no-cudagraphs"),
    }[key]
    return kind(case, images, labels, mode)


def matrix_peak(clock: Clock, precision: str, side: int) -> float | None:
    """FLOP a second of a large product; None: there is no GPU."""
    if DEVICE.type != "cuda":
        return None
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    dtype = HALVES.get(precision, torch.float32)
    left, right = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * side**3 / clock(lambda: torch.mm(left, right, out=out), synchronize)


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
