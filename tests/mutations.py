"""Small changes to what files hold, for tests that readers refuse in a line what they cannot read."""

import random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    2**63,
    10**400,
    float("nan"),
    "",
    "x" * 5000,
    "\x1b[2J",
    [],
    {},
    [[]],
)
_ODD_BYTES = (b"\0", b"\xff", b'"', b"{", b"]", b",", b"9" * 5000, b"[" * 5000, b"NaN", b"\x1b", b"\n")


def mutated(content: bytes, choose: random.Random) -> bytes:
    """Changes, removes or inserts a few bytes."""
    for _ in range(choose.randint(1, 3)):
        at = choose.randrange(len(content) + 1)
        cut = choose.choice((0, 0, 1, 1, 4))
        content = content[:at] + choose.choice((b"", *_ODD_BYTES)) + content[at + cut :]
    return content


def mutated_table(value: Any, choose: random.Random) -> Any:
    """Changes one value somewhere in nested tables and lists, removes it, or adds another."""
    if choose.random() < 0.2 or not isinstance(value, dict | list) or not value:
        return choose.choice(ODD_VALUES)
    if isinstance(value, list):
        at = choose.randrange(len(value))
        return [*value[:at], mutated_table(value[at], choose), *value[at + 1 :]]
    name = choose.choice(sorted(value))
    deed = choose.random()
    if deed < 0.15:
        return {key: item for key, item in value.items() if key != name}
    if deed < 0.3:
        return value | {choose.choice(("zzz", "\x1b[2J", "", "x" * 5000)): choose.choice(ODD_VALUES)}
    return value | {name: mutated_table(value[name], choose)}
