"""The documents whose commands are run: those of ```bash blocks anywhere, those of ```console blocks in labs."""

import re
from collections.abc import Mapping

from conftest import ROOT

DOCUMENTS = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))


def lines_of(kind: str, document: str) -> list[str]:
    blocks = re.findall(rf"```{kind}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    return [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]


def for_clusters(*starts: str, instead: Mapping[str, str]) -> str:
    """A script of the console lines that begin so, with smaller numbers `instead` of those that are there."""
    lines = [line.removeprefix("sudo ") for document in DOCUMENTS for line in lines_of("console", document)]
    script = "\n".join(line for line in lines if line.startswith(starts))
    for shown, small in instead.items():
        assert shown in script
        script = script.replace(shown, small)
    return script
