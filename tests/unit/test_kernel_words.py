"""The numbers of words are written twice, in Python and in words.cuh: they are the same."""

import re
from enum import IntEnum

import pytest

from ddpgd.kernels.cuda import sources
from ddpgd.kernels.words import CONTROL_WORDS, CURSOR_WORDS, HISTORY_WORDS, TAIL_WORDS, Control, Cursor, History, Tail

ENUMS = {"Tail": (Tail, TAIL_WORDS), "Control": (Control, CONTROL_WORDS), "Cursor": (Cursor, CURSOR_WORDS)}


def numbered(name: str, known: dict[str, int]) -> dict[str, int]:
    """The members of a C enum, with their values."""
    text = (sources.FOLDER / "words.cuh").read_text(encoding="utf-8")
    (body,) = re.findall(rf"enum {name} {{(.*?)}};", text, re.DOTALL)
    members: dict[str, int] = {}
    value = -1
    for part in body.split(","):
        member, _, formula = (piece.strip() for piece in part.partition("="))
        value = (
            sum(known[term] if term in known else int(term) for term in formula.split(" + ")) if formula else value + 1
        )
        members[member] = value
    return members


@pytest.mark.parametrize("name", ENUMS)
def test_words_have_one_number(name: str) -> None:
    enum, total = ENUMS[name]
    assert numbered(name, {}) == {member.name: member.value for member in enum} | {f"{name.upper()}_WORDS": total}


def test_history_words_have_one_number() -> None:
    history: type[IntEnum] = History
    wanted = {f"HISTORY_{member.name}": member.value for member in history} | {"HISTORY_WORDS": HISTORY_WORDS}
    assert numbered("History", {"TAIL_WORDS": TAIL_WORDS}) == wanted
