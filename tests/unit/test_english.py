"""Plain English: docstrings begin with a verb or a noun, and private metaphors are gone."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TREES = ("ddpgd", "benchmarks", "tools", "scripts", "examples", "tests")
SOURCES = sorted(path for tree in TREES for path in (ROOT / tree).rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])

QUESTION_WORDS = frozenset(("what", "where", "who", "whose", "how", "when", "whether", "which", "why", "of"))

METAPHORS = {
    r"(a|the|only|own|its) room (that|of)|\brooms of\b": "module or package",
    r"\bhouses?\b": "package",
    r"\bfloors\b": "layers",
    r"\bhopeful\b": "optimistic",
    r"the library's face\b": "the library",
    r"no look of the host": "no host work",
    r"who will not come": "a failed rank",
    r"whose mean is right": "unbiased stochastic rounding",
    r"launcher's own words": "other arguments",
}


def docstrings(path: Path) -> list[tuple[int, str]]:
    """The first line of each docstring of a module, with its line number."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = []
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            found.append((getattr(node, "lineno", 1), text.splitlines()[0] if text.strip() else ""))
    return found


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    bad = [
        f"{path.relative_to(ROOT)}:{line}: {first}"
        for path in SOURCES
        for line, first in docstrings(path)
        if re.split(r"\W+", first.strip("` \"'"), maxsplit=1)[0].lower() in QUESTION_WORDS
    ]
    assert not bad, "\n" + "\n".join(bad)


@pytest.mark.parametrize("pattern", METAPHORS)
def test_no_private_metaphors(pattern: str) -> None:
    bad = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in [*SOURCES, *DOCUMENTS]
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(pattern, line, flags=re.IGNORECASE)
    ]
    assert not bad, f"say {METAPHORS[pattern]!r}:\n" + "\n".join(bad)
