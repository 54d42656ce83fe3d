"""Puts figures into a page of `benchmarks/`: between the two comments that name their place."""

from pathlib import Path


class PageError(Exception):
    """The page has no such place."""


def fill(page: Path, place: str, lines: list[str]) -> None:
    """Replaces what stands in `page` between `<!-- PLACE -->` and `<!-- end of PLACE -->`."""
    begin, end = f"<!-- {place} -->", f"<!-- end of {place} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise PageError(f"{page}: there is no {begin} with {end} after it")
    text = "\n".join(lines).strip()
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
