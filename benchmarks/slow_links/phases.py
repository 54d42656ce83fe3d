"""Phases of a run in `benchmarks.slow_links.run`: parts whose steps cost the same, how long each is timed, what it sends."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.lib.common import LAB_LINKS, NUM_RANKS
from benchmarks.slow_links.cases import NETWORKS, STEPS_PER_EPOCH, Setting

LEAST_STEPS, MOST_STEPS = 10, 234
TOGETHER_S = 2.0
"""What the steps of a timed run take, about, where they may be fewer than MOST_STEPS."""
LOCAL_FLAGS = ("--sync", "--local-steps", "--local-after", "--outer-lr", "--outer-momentum")


@dataclass(frozen=True)
class Phase:
    """From step `first` on, steps cost what those of `setting` do."""

    first: int
    setting: Setting


def phases(whole: Setting) -> list[Phase]:
    """Returns a whole run, cut where the cost of its steps changes."""
    wanted = options(whole.flags)
    cuts, setting_at = _torch_phases(wanted) if whole.is_torch else _our_phases(wanted)
    found: list[Phase] = []
    for first in sorted(cuts):
        phase = Phase(first, Setting(_text(setting_at(first)), whole.is_torch, whole.num_ranks))
        if not found or found[-1].setting != phase.setting:
            found.append(phase)
    return found


def _our_phases(wanted: dict[str, str]) -> tuple[set[int], Callable[[int], dict[str, str]]]:
    """Returns the cuts at --local-after, and after each epoch in which topk sends more."""
    local_after = int(wanted.get("--local-after", 0)) if "--sync" in wanted else None
    is_sparse = wanted.get("--wire") == "topk"
    warmup = int(wanted.get("--topk-warmup", 0)) if is_sparse else 0
    density = float(wanted.get("--topk-density", 0.01))

    def setting_at(step: int) -> dict[str, str]:
        is_local = local_after is not None and step >= local_after
        kept = {flag: value for flag, value in wanted.items() if is_local or flag not in LOCAL_FLAGS}
        kept.pop("--local-after", None)
        if is_sparse:
            warm = min(1.0, (step // STEPS_PER_EPOCH + 1) / (warmup + 1))
            kept |= {"--topk-density": f"{density**warm:.4g}", "--topk-warmup": "0"}
        return kept

    return {0, local_after or 0, *(STEPS_PER_EPOCH * epoch for epoch in range(warmup + 1))}, setting_at


def _torch_phases(wanted: dict[str, str]) -> tuple[set[int], Callable[[int], dict[str, str]]]:
    """Returns the cut at --start of the hooks that have one; before it, gradients are not changed."""
    start = int(wanted.get("--start", 0))

    def setting_at(step: int) -> dict[str, str]:
        if step < start:
            return {"--hook": "none"}
        least = {"powersgd": "2", "post-local": "0"}.get(wanted["--hook"])
        return wanted | ({"--start": least} if least else {})

    return {0, start}, setting_at


def options(flags: str) -> dict[str, str]:
    """Returns flags by name; a flag without a value has an empty one."""
    words = [*flags.split(), "--"]
    return {word: "" if after.startswith("--") else after for word, after in pairwise(words) if word.startswith("--")}


def _text(wanted: dict[str, str]) -> str:
    return " ".join(f"{flag} {value}".strip() for flag, value in wanted.items())


def period(setting: Setting) -> int:
    """Returns the steps of a round."""
    wanted = options(setting.flags)
    if setting.is_torch:
        return int(wanted.get("--period", 8)) if wanted["--hook"] == "post-local" else 1
    return int(wanted.get("--local-steps", 8)) if "--sync" in wanted else 1


def gradient_bytes(sizes: tuple[int, ...]) -> int:
    return 4 * sum((k + 1) * n for k, n in pairwise(sizes))


def torch_bytes(setting: Setting, sizes: tuple[int, ...]) -> float:
    """Returns the bytes a step that a rank sends, by formula, since PyTorch does not count: a ring sends 2 (W - 1) / W."""
    wanted, whole = options(setting.flags), gradient_bytes(sizes)
    hook = wanted["--hook"]
    if hook == "powersgd":
        rank = int(wanted.get("--rank", 2))
        # As the hook has it, a matrix is left as it is where its factors are not half as large, at most.
        whole = sum(4 * (n + (rank * (k + n) if 2 * rank * (k + n) < k * n else k * n)) for k, n in pairwise(sizes))
    share = {"fp16": 0.5, "post-local": 1 / period(setting)}.get(hook, 1.0)
    return 2 * (NUM_RANKS - 1) / NUM_RANKS * whole * share


def num_steps(setting: Setting, network: str, link: str) -> int:
    """Returns the steps of a timed run, whose second half counts: whole rounds in each half, more where steps are short."""
    sizes = NETWORKS[network]
    step_s = gradient_bytes(sizes) * (_share(setting) / LAB_LINKS[link] if link in LAB_LINKS else 0) + 1e-3
    round_steps = 2 * period(setting)
    wanted = max(LEAST_STEPS, min(MOST_STEPS, TOGETHER_S / step_s))
    return round_steps * max(1, math.floor(wanted / round_steps))


def _share(setting: Setting) -> float:
    """Returns the share of a float32 gradient that travels each step, about."""
    wanted = options(setting.flags)
    if setting.num_ranks == 1:
        return 0.0
    if setting.is_torch:
        return {"fp16": 0.5, "powersgd": 0.05}.get(wanted["--hook"], 1.0) / period(setting)
    sparse = min(1.0, 1.5 * float(wanted.get("--topk-density", 1)))
    share = {"float16": 0.5, "bfloat16": 0.5, "int8": 0.25, "powersgd": 0.05, "topk": sparse}
    return share.get(wanted.get("--wire", ""), 1.0) / period(setting)
