"""A picture of predictions, as PNG or SVG."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ddpgd.run.plots import pyplot, save_figure
from ddpgd.scaling.cost_model import Prediction


def draw_predictions(found: Sequence[Prediction], path: Path) -> None:
    """Efficiency, and a step's parts, against ranks. InputError: matplotlib is missing, or the file cannot be written."""
    plt = pyplot()
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(9, 7.5), sharex=True, layout="constrained", height_ratios=(3, 2)
    )
    sizes = [one.world_size for one in found]
    parts: dict[str, Callable[[Prediction], float]] = {
        "compute": lambda one: one.compute_s,
        "wait": lambda one: one.wait_s,
        "exchange": lambda one: one.exchange_s,
    }
    above.plot(sizes, [100 * one.efficiency for one in found], marker="o", color="#0072b2")
    above.axhline(100, color="black", linestyle=":", linewidth=1)
    above.set(ylabel="efficiency, %", ylim=(0, 105), title="Predicted efficiency, and where a step goes")
    shares = [[100 * part(one) / one.step_s for one in found] for part in parts.values()]
    below.stackplot(sizes, *shares, labels=list(parts), colors=["#009e73", "#e69f00", "#d55e00"], alpha=0.85)
    below.set(xscale="log", xlabel="ranks", ylabel="share of a step, %", ylim=(0, 100))
    below.set_xticks(sizes, [f"{size:,}" for size in sizes])
    below.minorticks_off()
    figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=len(parts), frameon=False)
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.3)
    save_figure(figure, path, "--plot")
