"""Files that a user names for what a command writes, all of them checked before it begins."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ddpgd.errors import InputError
from ddpgd.run.atomic import check_replaceable


class OutputFile(NamedTuple):
    """A file to be written.

    Attributes:
        flag: The flag that names it.
        path: Its place.
        kind: What is to be written, for messages, as in "a GIF".
        sign: Text within the first bytes of all files of that kind, in any case.
        suffixes: The ends that its name may have, as in ".gif"; empty: any.
    """

    flag: str
    path: Path
    kind: str
    sign: str
    suffixes: tuple[str, ...] = ()


def check_files(files: Sequence[OutputFile]) -> None:
    """Checks that files can be written, each of its kind, and that no two are the same.

    Raises:
        InputError: One cannot be, or its name or what is there is of another kind, or it is named twice.
    """
    for number, file in enumerate(files):
        check_replaceable(file.path, file.flag, file.kind, file.sign)
        if file.suffixes and file.path.suffix.lower() not in file.suffixes:
            examples = " or ".join(f"name{suffix}" for suffix in file.suffixes[:2])
            raise InputError(f"{file.flag} {file.path}: is no name of {file.kind}; name a file as {examples}")
        for before in files[:number]:
            if before.path.resolve() == file.path.resolve():
                raise InputError(f"{file.flag} {file.path}: is the file of {before.flag}; name another one")
