"""A picture of a layout, as SVG: which rank holds which layers and shards, and what ranks send each other in a step."""

from collections.abc import Iterator, Sequence
from html import escape

from ddpgd.comm.grid import Shape
from ddpgd.config.schema import Config
from ddpgd.config.units import bytes_text
from ddpgd.run import build_network
from ddpgd.scaling.layouts import RankOf, predict

WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 184, 108, 84, 44, 16
"""Of a rank's box, the gaps between boxes for arrows, and that around all, in pixels."""
COLORS = ("#4878a8", "#c8743c", "#5a9a5a", "#a05a8c")
"""Of replicas."""


def draw(config: Config, image_shape: tuple[int, int], world_size: int) -> str:
    """Returns the picture of a layout.

    Replicas stand side by side, and so do the stages of each; ranks that share layers stand below each other.

    Args:
        config: Resolved; its layout is a grid of `world_size` ranks.
        image_shape: Of the samples.
        world_size: Number of ranks.
    """
    shape = build_network.grid_shape(config, world_size)
    ranks = predict(config, image_shape, world_size)
    texts = _texts(config, image_shape, shape, ranks)
    num_columns = shape.data * shape.pipeline
    width = 2 * MARGIN + num_columns * (WIDTH + ACROSS) - ACROSS
    height = 2 * MARGIN + 24 + shape.tensor * (HEIGHT + DOWN) - DOWN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<defs><marker id="tip" markerWidth="7" markerHeight="6" refX="6" refY="3" orient="auto-start-reverse">'
        '<path d="M0 0 L7 3 L0 6 z" fill="#444"/></marker></defs>',
        f'<text x="{MARGIN}" y="{MARGIN + 8}" font-size="14" font-weight="bold">{escape(_title(shape, ranks))}</text>',
        *(_box(rank, shape, text) for rank, text in zip(ranks, texts, strict=True)),
        *_arrows(shape, ranks),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _title(shape: Shape, ranks: Sequence[RankOf]) -> str:
    axes = (f"{axis} {count}" for axis, count in shape._asdict().items() if count > 1)
    is_sharded = any(rank.optimizer_bytes < rank.params_bytes for rank in ranks)
    return (" x ".join(axes) or "one rank") + ", sharded optimizer" * is_sharded


def _texts(config: Config, image_shape: tuple[int, int], shape: Shape, ranks: Sequence[RankOf]) -> list[list[str]]:
    """The lines in each rank's box."""
    widths = build_network.sizes(config, image_shape)
    stages = build_network.stages(config, widths, shape.pipeline)
    texts = []
    for number, rank in enumerate(ranks):
        stage = stages[rank.place.pipeline]
        shards = build_network.shards_of(config, shape, rank.place).own
        lines = [f"layers {'-'.join(map(str, widths[stage.start : stage.stop + 1]))}"]
        if config.shards > 1:
            own = f"shards {shards.start} to {shards.stop - 1}" if len(shards) > 1 else f"shard {shards.start}"
            lines.append(f"{own} of {config.shards}")
        lines.append(f"params {bytes_text(rank.params_bytes)}")
        lines.append(f"each optimizer vector {bytes_text(rank.optimizer_bytes)}")
        if shape.data > 1:
            lines.append(f"sends for sums {bytes_text(rank.sent.data)}")
        texts.append([f"rank {number}", *lines])
    return texts


def _corner(place: Shape, shape: Shape) -> tuple[int, int]:
    """The upper left corner of a rank's box."""
    column = place.data * shape.pipeline + place.pipeline
    return MARGIN + column * (WIDTH + ACROSS), MARGIN + 24 + place.tensor * (HEIGHT + DOWN)


def _box(rank: RankOf, shape: Shape, lines: list[str]) -> str:
    x, y = _corner(rank.place, shape)
    color = COLORS[rank.place.data % len(COLORS)]
    texts = "".join(
        f'<text x="{x + 10}" y="{y + 19 + 16 * number}"{" font-weight=" + chr(34) + "bold" + chr(34) if number == 0 else ""}>'
        f"{escape(line)}</text>"
        for number, line in enumerate(lines)
    )
    box = f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{color}22" stroke="{color}"/>'
    return box + texts


def _arrows(shape: Shape, ranks: Sequence[RankOf]) -> Iterator[str]:
    """Arrows between neighbours, with the bytes that each of them sends in a step."""
    by_place = {rank.place: rank for rank in ranks}
    for place, rank in by_place.items():
        x, y = _corner(place, shape)
        is_last = place.pipeline == shape.pipeline - 1
        if not is_last:
            # A stage sends at both of its edges, each time as much as it receives there.
            crossing = 0
            for stage in range(place.pipeline + 1):
                crossing = by_place[place._replace(pipeline=stage)].sent.pipeline - crossing
            yield _across(x, y, bytes_text(crossing))
        elif shape.pipeline == 1 and place.data + 1 < shape.data:
            yield _across(x, y, "sums")
        if place.tensor + 1 < shape.tensor and rank.sent.tensor:
            line = (x + 30, y + HEIGHT, x + 30, y + HEIGHT + DOWN)
            yield _arrow(line, f"columns {bytes_text(rank.sent.tensor)}", (x + 42, y + HEIGHT + DOWN // 2 + 4), "start")


def _across(x: int, y: int, text: str) -> str:
    line = (x + WIDTH, y + HEIGHT // 2, x + WIDTH + ACROSS, y + HEIGHT // 2)
    return _arrow(line, text, (x + WIDTH + ACROSS // 2, y + HEIGHT // 2 - 8), "middle")


def _arrow(line: tuple[int, int, int, int], text: str, at: tuple[int, int], anchor: str) -> str:
    x1, y1, x2, y2 = line
    return (
        f'<line x1="{x1 + 2 * (x1 != x2)}" y1="{y1 + 2 * (y1 != y2)}" x2="{x2 - 2 * (x1 != x2)}" y2="{y2 - 2 * (y1 != y2)}" '
        'stroke="#444" marker-start="url(#tip)" marker-end="url(#tip)"/>'
        f'<text x="{at[0]}" y="{at[1]}" text-anchor="{anchor}" font-size="11">{escape(text)}</text>'
    )
