"""Published scaling efficiencies beside those that `ddpgd plan` predicts from what the same sources state.

The cases are in published-cases.json: the network's params, the batch of a GPU, the speed of one GPU, GPUs a node, and the
nominal rate of the link between nodes; and the measured efficiency. Nothing else goes into a prediction. All of them are
synchronous all-reduces, which is what `plan` models; they are predicted with --reduce fast, and --overlap 0.66 where gradients
travel during the backward pass.

    python -m benchmarks.cost_model.published --page benchmarks/cost_model/published-cases.md
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.cost_model.records import Published
from benchmarks.lib.page import PageError, fill

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CASES = Path(__file__).with_name("published-cases.json")
OVERLAP = "0.66"


def plan_words(case: Published) -> list[str]:
    """Returns the command that predicts a case."""
    batch, speed = case["batch_per_gpu"], case["single_gpu_samples_per_s"]
    words = f"--parameters {case['parameters']} --micro-batch {batch} --compute-time {1000 * batch / speed:.2f}ms "
    words += f"--ranks {case['ranks']} --ranks-per-node {case['gpus_per_node']} --link {case['link']} --reduce fast "
    return ["ddpgd", "plan", *words.split(), *(["--overlap", OVERLAP] if case["overlap"] else [])]


def predicted(case: Published) -> float:
    """Returns the predicted efficiency of a case."""
    words = [sys.executable, "-m", *plan_words(case), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["predictions"][0]["efficiency"])


def page_lines(cases: list[Published]) -> list[str]:
    """Returns errors in points, in all and by source, and every case."""
    errors = [abs(case["predicted"] - case["efficiency"]) for case in cases]
    sources = {case["source"]: case["address"] for case in cases}
    by_source = {
        source: [error for case, error in zip(cases, errors, strict=True) if case["source"] == source]
        for source in sources
    }
    always = {guess: statistics.median(abs(guess - case["efficiency"]) for case in cases) for guess in (0.8, 0.9, 1.0)}
    doubts = list(dict.fromkeys(case["doubt"] for case in cases if case["doubt"]))
    certain = [error for case, error in zip(cases, errors, strict=True) if not case["doubt"]]
    lines = [
        f"**{len(cases)} cases of {len(sources)} sources: median error {_points(errors)} points, largest "
        f"{100 * max(errors):.0f}.** "
        f"Median of the sources' medians: {100 * statistics.median(map(statistics.median, by_source.values())):.1f} points. "
        f"Of the {len(certain)} cases without a doubt (a letter at the error): median {_points(certain)}, largest "
        f"{100 * max(certain):.0f}.",
        "A constant guess of "
        + ", ".join(f"{100 * guess:.0f} % is off by {100 * error:.1f}" for guess, error in always.items())
        + " points in the median.",
        "",
        "| source | cases | median error, points | largest |",
        "|---|---|---|---|",
        *[
            f"| [{source}]({sources[source]}) | {len(own)} | {_points(own)} | {100 * max(own):.0f} |"
            for source, own in by_source.items()
        ],
        "",
        *[f"- {letter}: {doubt}" for letter, doubt in zip(LETTERS, doubts, strict=False)],
        "",
        "| source, framework | network, params, batch | GPUs of a node, link | ranks | one GPU, samples/s | measured, % "
        "| predicted | error |",
        "|---" * 8 + "|",
    ]
    for case in cases:
        letter = f" {LETTERS[doubts.index(case['doubt'])]}" if case["doubt"] else ""
        lines.append(
            f"| {case['source'].partition(',')[0]}, {case['framework']} | {case['network']}, {case['parameters'] / 1e6:.4g} M, "
            f"{case['batch_per_gpu']} | {case['gpus_per_node']} {case['gpu']}, {case['link_words']} | {case['ranks']} "
            f"| {case['single_gpu_samples_per_s']:.4g} | {100 * case['efficiency']:.0f} | {100 * case['predicted']:.0f} "
            f"| {100 * (case['predicted'] - case['efficiency']):+.0f}{letter} |"
        )
    return lines


def _points(errors: list[float]) -> str:
    return f"{100 * statistics.median(errors):.1f}"


def main(arguments: list[str]) -> int:
    """0 done, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", metavar="FILE", type=Path, help="puts the tables into this page")
    asked = parser.parse_args(arguments)
    cases: list[Published] = json.loads(CASES.read_text(encoding="utf-8"))
    for case in cases:
        case["predicted"] = predicted(case)
    lines = page_lines(cases)
    try:
        if asked.page:
            fill(asked.page, "published cases", lines)
        else:
            print("\n".join(lines))
    except (OSError, PageError) as failure:
        print(f"published_cases: {failure}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
