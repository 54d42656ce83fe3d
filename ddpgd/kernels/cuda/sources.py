"""The text of the CUDA kernels: each `.cu` file with the project's own headers in place of its #include lines."""

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")

_OWN_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


def files() -> list[str]:
    """The names of all `.cu` files."""
    return sorted(path.name for path in FOLDER.glob("*.cu"))


@cache
def joined(file: str) -> str:
    """One text for a compiler that is given no folder; #line keeps its messages true to the files."""

    def with_headers(name: str, seen: set[str]) -> str:
        text = (FOLDER / name).read_text(encoding="utf-8")

        def replace(match: re.Match[str]) -> str:
            line = text.count("\n", 0, match.start()) + 2
            header = match[1]
            if header in seen:
                return ""
            seen.add(header)
            return f'#line 1 "{header}"\n{with_headers(header, seen)}\n#line {line} "{name}"'

        return _OWN_INCLUDE.sub(replace, text)

    return f'#line 1 "{file}"\n{with_headers(file, set())}'


def options(precision: str) -> tuple[str, ...]:
    """Compiler options; `value.cuh` reads the precision."""
    return ("-std=c++17", f"-DPRECISION_{precision.upper()}")
