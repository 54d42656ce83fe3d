"""From the JSON of `benchmarks.gpu.run` to Markdown: conditions, targets, times of a step, epochs, profiles.

python -m benchmarks.gpu.report benchmarks/gpu.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import NAMES
from benchmarks.gpu.targets import ratio, targets

OWN_COLUMNS = (
    *("rows", "precision", "ddpgd, us", "samples/s", "TFLOP/s", "of the peak"),
    *("limit, us", "limit / ddpgd", "launches", "host's order, us"),
)


def report(found: dict[str, Any]) -> list[str]:
    return [*_heading(found), *_targets(found), *_steps(found), *_epoch(found), *_profiles(found), *_remarks(found)]


def _heading(found: dict[str, Any]) -> list[str]:
    settings = ", ".join(f"{name}={value}" for name, value in found["environment"].items()) or "none"
    facts = [f"{library}: {_pairs(own)}" for library, own in found["libraries"].items()]
    return [
        "# Training steps on a GPU",
        "",
        f"- command: `{found['command']}`, {found['time']}; {found['num_repetitions']} repetitions, contestants in turn",
        f"- commit: {found['commit']}; data: {found['data']}",
        f"- hardware: {found['libraries']['ddpgd']['device']}; {found['hardware']}, {found['num_cores']} cores",
        f"- driver: {found['gpu'] or 'no nvidia-smi'}",
        *(f"- {line}" for line in facts),
        *(f"- {library} took no part: {reason}" for library, reason in found["absent"].items()),
        f"- versions: {_pairs(found['versions'])}; settings in the environment: {settings}",
        f"- all: {found['optimizer']}; samples gathered and normalised from bytes on the device",
        *_peaks(found.get("peaks")),
        "",
    ]


def _peaks(peaks: dict[str, Any] | None) -> list[str]:
    if peaks is None:
        return []
    flop = ", ".join(f"{name} {value / 1e12:.3g}" for name, value in peaks["flop_per_s"].items() if value)
    copy = f"{peaks['copy'] / 1e9:,.0f} GB/s" if peaks["copy"] else "not measured"
    return [
        f"- TFLOP/s of products of {peaks['side']} x {peaks['side']} by {peaks['flop_by']}: {flop or 'not measured'}; "
        f"copy of {peaks['copy_bytes'] / 1e6:,.0f} MB on the device, read and written: {copy}"
    ]


def _targets(found: dict[str, Any]) -> list[str]:
    said = {True: "met", False: "missed", None: "not measured"}
    rows = [f"| {target.wanted} | {target.got} | {said[target.met]} |" for target in targets(found)]
    return ["## Targets", "", "| target | got | |", "|---|---|---|", *rows, ""]


def _steps(found: dict[str, Any]) -> list[str]:
    """A table for each network: ours, its limits, and the others."""
    lines = [
        "## Microseconds a step",
        "",
        "Medians (min to max). Beside others: their time over ours, within a repetition. Host's order: what drawing an",
        "epoch's order on the host adds to each of our steps; it is part of them.",
        "",
    ]
    for sizes in dict.fromkeys(tuple(case["sizes"]) for case in found["cases"]):
        own = [case for case in found["cases"] if tuple(case["sizes"]) == sizes]
        others = [key for key in NAMES if key != "captured" and any("us" in _row(case, key) for case in own)]
        lines += [
            f"**{'-'.join(map(str, sizes))}**",
            "",
            f"| {' | '.join((*OWN_COLUMNS, *(NAMES[key] for key in others)))} |",
            "|---" * (len(OWN_COLUMNS) + len(others)) + "|",
            *(_line(case, others, found["peaks"]) for case in own),
            "",
        ]
    if found["not_reached"]:
        lines += [f"Not reached within {found['seconds']:g} s: {'; '.join(found['not_reached'])}.", ""]
    return lines


def _line(case: dict[str, Any], others: list[str], peaks: dict[str, Any]) -> str:
    own, work = _row(case, "captured"), case.get("work")
    cells = [str(case["rows"]), case["precision"]]
    if "us" in own and work:
        us = own["us"]["median"]
        flop_per_s, peak = work["flop"] / us * 1e6, peaks["flop_per_s"].get(case["precision"])
        what, limit_s = max(case["limits_s"].items(), key=lambda item: item[1])
        cells += [_between(own["us"], ",.1f"), f"{case['rows'] / us * 1e6:,.0f}", f"{flop_per_s / 1e12:.3g}"]
        cells += [f"{flop_per_s / peak:.1%}" if peak else "-"]
        cells += [f"{1e6 * limit_s:,.1f} ({what})", f"{1e6 * limit_s / us:.0%}", str(work["launches"])]
        cells += [f"{1e6 * work['order_s']:.1f}"]
    else:
        cells += [own.get("error", "-"), *"-------"]
    for key in others:
        theirs, times = _row(case, key).get("us"), ratio(_row(case, key))
        cells.append(f"{theirs['median']:,.1f}{'' if times is None else f' ({times:.2f} x)'}" if theirs else "-")
    return f"| {' | '.join(cells)} |"


def _epoch(found: dict[str, Any]) -> list[str]:
    epoch = found["epoch"]
    if not epoch:
        return []
    reached = _between(_scaled(epoch["reached_s"], 1e3), ".1f") + " ms of training" if epoch["reached_s"] else "never"
    return [
        "## Whole runs",
        "",
        f"`{epoch['command']}`, {epoch['num_runs']} seeds:",
        "",
        f"- an epoch: {_between(_scaled(epoch['epoch_s'], 1e3), '.2f')} ms of training; "
        f"{_between(epoch['step_us_median'], '.0f')} us a step",
        f"- test accuracy after it: {_between(_scaled(epoch['test_accuracy'], 100), '.2f')} %",
        f"- 98 % reached by {epoch['num_reached']} of {epoch['num_runs']}: {reached}, "
        f"{_between(epoch['reached_epochs'], '.0f')} epochs",
        "",
    ]


def _profiles(found: dict[str, Any]) -> list[str]:
    lines = []
    for profile in found["profiles"]:
        total = sum(row["calls"] * row["us"] for row in profile["ops"])
        rows = [
            f"| {row['op']} | {row['shapes']} | {row['calls']} | {row['us']:.2f} | {row['calls'] * row['us'] / total:.0%} |"
            for row in profile["ops"]
        ]
        head = [
            f"**{profile['name']}**: {total:.1f} us in all",
            "",
            "| op | arrays | calls | us | share |",
            "|---" * 5 + "|",
        ]
        lines += [*head, *rows, ""]
    return ["## Op by op, each alone", "", *lines] if lines else []


def _remarks(found: dict[str, Any]) -> list[str]:
    """Returns warnings for the reader of a table."""
    lines = [f"- {problem}" for problem in dict.fromkeys(found["problems"])]
    for case in found["cases"]:
        for key, row in case["contestants"].items():
            if "error" in row:
                lines.append(f"- {case['name']}: {NAMES[key]} has no figure: {row['error']}")
            elif not row["last_loss"] < row["first_loss"]:
                losses = f"{row['first_loss']:.4f} before, {row['last_loss']:.4f} after"
                lines.append(f"- WARNING: {case['name']}: {NAMES[key]} has not learned (loss {losses})")
    alike = (
        "- the others neither take the norm of the gradient nor look whether it is finite, as ddpgd does in each step"
    )
    return ["## Remarks", "", *lines, alike, ""]


def _row(case: dict[str, Any], key: str) -> dict[str, Any]:
    found: dict[str, Any] = case["contestants"].get(key, {})
    return found


def _between(values: dict[str, Any], form: str) -> str:
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"


def _scaled(values: dict[str, Any], factor: float) -> dict[str, Any]:
    return {name: factor * values[name] for name in ("median", "min", "max")}


def _pairs(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)


if __name__ == "__main__":
    print("\n".join(report(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
