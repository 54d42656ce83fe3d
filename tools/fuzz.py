"""Hands damaged files to every reader of the project: python -m tools.fuzz --inputs 1000000 checkpoint records

An input is a valid file of the reader, or two spliced, changed at one to four places: bits, bytes, pieces left out, doubled or
put in, numbers replaced by odd ones, the end cut off. A reader may accept it or refuse it with an `InputError` of one line,
within 10 s of computing and 4 GiB of address space; anything else is told with the input, which --keep puts into a folder.
Inputs depend on --seed alone. The lines that the first --traced inputs reach are counted, of all lines of the reader's modules.

    --readers             lists the readers (default: all of them)
    --page FILE.md        the page whose table is replaced (default: print it)
"""

import io
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import CodeType, FrameType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import ddpgd
from benchmarks.lib.program import Program, make_parser, show
from ddpgd.config import parsing, toml_file, validation
from ddpgd.config.schema import Config
from ddpgd.data import idx, picture
from ddpgd.errors import DdpgdError, InputError
from ddpgd.lab import functions
from ddpgd.results.sweep import plan
from ddpgd.run import (
    checkpoint,
    checkpoint_schema,
    ending,
    inject,
    recording,
    records,
    safetensors_file,
    strict_json,
    summary,
)
from ddpgd.scaling.conditions import commit
from ddpgd.watch import answers

_PROGRAM = Program("fuzz")
_LIMIT_S = 10.0
_ADDRESS_BYTES = 4 << 30
_ODD = [
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"true",
    b'""',
    b"[]",
    b"{}",
    b"9" * 20,
    b"9" * 5000,
    b"0.1",
    b"[" * 3000,
]
_MEMORY = "/dev/shm"


class Reader(NamedTuple):
    """A reader of files.

    Attributes:
        read: Reads what is at a path.
        name: The file's name, in a folder of its own.
        seeds: Contents that are valid.
        modules: Those that read it.
    """

    read: Callable[[Path], object]
    name: str
    seeds: list[bytes]
    modules: tuple[ModuleType, ...]


class TooSlow(Exception):
    """A reader took longer than it may."""


def readers(run: Path) -> dict[str, Reader]:
    """Returns the readers by name, with seeds from a small run that is made in `run`."""
    config = Config(data="synthetic", hidden=(5,), steps=4, log_every=1, record=True, quiet=True, run_dir=str(run))
    ddpgd.train(config)
    saved = checkpoint.newest_first(run / "checkpoints")[0].read_bytes()
    recorded = next((run / "record").iterdir())
    rows = json.dumps({"ranks": [[0, "a", 7, *[1] * 7, 0.5, "x", "y"]], "alike": True}).encode()
    labels = bytes.fromhex("0000080100000005") + bytes([1, 2, 3, 4, 9])
    images = bytes.fromhex("00000803000000020000000300000004") + bytes(range(24))
    sweep = b'data = "synthetic"\nsteps = 3\n[sweep]\nlr = [0.1, 0.2]\nhidden = [[8], [16, 8]]\n'
    draws = b"steps = 3\n[sweep]\nrandom = 4\nrandom_seed = 1\nlr = { low = 0.01, high = 1.0, log = true }\n"
    toml, texts = (run / "config.toml").read_bytes(), [b"die@1:40,hang@0:3", b"flip@2:100"]
    of_json = strict_json
    return {
        "idx images": Reader(idx.read_images, "i", [images, _packed(images)], (idx,)),
        "idx labels": Reader(idx.read_labels, "l", [labels, _packed(labels)], (idx,)),
        "checkpoint": Reader(
            _checkpoint, "step-00000004.safetensors", [saved], (checkpoint, checkpoint_schema, safetensors_file)
        ),
        "checkpoint tables": Reader(_tables, "tables", [_metadata(run)], (checkpoint_schema,)),
        "summary": Reader(
            _beside(summary.read_summary), "summary.json", [(run / "summary.json").read_bytes()], (summary,)
        ),
        "records": Reader(
            _beside(records.read_records), "metrics.jsonl", [(run / "metrics.jsonl").read_bytes()], (records, of_json)
        ),
        "ending": Reader(
            _beside(ending.read_ending),
            "ended.json",
            [b'{"exit_code": 3, "reason": "step 4: not finite"}'],
            (ending, of_json),
        ),
        "recording": Reader(_recording, recorded.name, [recorded.read_bytes()], (recording,)),
        "configuration": Reader(
            _configuration, "c.toml", [toml, b'[bad]\nlr = "x"\n'], (toml_file, parsing, validation)
        ),
        "sweep": Reader(lambda path: plan.read_plan(str(path)), "s.toml", [sweep, draws], (plan, toml_file)),
        "picture": Reader(lambda path: picture.prepare(path, (28, 28)), "p.png", _pictures(), (picture,)),
        "answers": Reader(lambda path: answers.Answers(path.parents[1]).ranks(), "hang/ranks.json", [rows], (answers,)),
        "expression": Reader(
            lambda path: functions.expression(path.read_text(encoding="utf-8", errors="replace")),
            "e",
            [b"(x-3)**2 + sin(y)", b"100*(y-x**2)**2+(1-x)**2", b"exp(-x)/sqrt(1+y**2)"],
            (functions,),
        ),
        "faults": Reader(
            lambda path: inject.parse(path.read_text(encoding="utf-8", errors="replace"), 4), "f", texts, (inject,)
        ),
    }


def _packed(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content, mtime=0)


def _beside(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Returns what reads a folder by a file in it."""
    return lambda path: read(path.parent)


def _checkpoint(path: Path) -> object:
    found = checkpoint.load(path)
    return checkpoint_schema.find_problem(found.arrays, found.counters, found.config, found.facts)


def _metadata(run: Path) -> bytes:
    """Returns the tables of a run's checkpoint, as JSON."""
    saved = checkpoint.load(checkpoint.newest_first(run / "checkpoints")[0])
    return json.dumps({"counters": saved.counters, "config": saved.config, "facts": saved.facts}).encode()


def _tables(path: Path) -> object:
    """Reads tables as those of a checkpoint whose hash is right."""
    tables = path.read_text(encoding="utf-8", errors="replace")
    arrays = {"params.dense1.bias": np.zeros(5, np.float32)}
    metadata = {"ddpgd": tables, "sha256": safetensors_file.sha256(arrays, tables)}
    whole = path.with_name("step-00000004.safetensors")
    whole.write_bytes(b"".join(safetensors_file.content(arrays, metadata)))
    return _checkpoint(whole)


def _recording(path: Path) -> object:
    """Reads a recording, whose folder is that of the file."""
    return recording.read(path.parents[1])


def _configuration(path: Path) -> None:
    validation.validate(Config(**toml_file.read_toml(str(path))))


def _pictures() -> list[bytes]:
    found = []
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        found.append(stream.getvalue())
    return found


def damaged(draw: Random, seeds: Sequence[bytes]) -> bytes:
    """Returns a valid content that is damaged at random places."""
    content = bytearray(draw.choice(seeds))
    for _ in range(draw.randrange(1, 5)):
        kind, at = draw.randrange(8), draw.randrange(len(content) + 1)
        end = min(len(content), at + 1 + int(draw.expovariate(0.2)))
        if kind == 0 and at < len(content):
            content[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(content):
            content[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif kind == 2:
            del content[at:end]
        elif kind == 3:
            content[at:at] = content[at:end]
        elif kind == 4:
            content[at:at] = draw.randbytes(draw.randrange(1, 9))
        elif kind == 5:
            del content[at:]
        elif kind == 6:
            _replace_number(draw, content, at)
        else:
            other = draw.choice(seeds)
            content[at:] = other[draw.randrange(len(other)) :]
    return bytes(content)


def _replace_number(draw: Random, content: bytearray, at: int) -> None:
    """Puts something odd in the place of the next number written in digits."""
    start = next((place for place in range(at, min(len(content), at + 200)) if 48 <= content[place] < 58), None)
    if start is not None:
        end = next((place for place in range(start, len(content)) if not 45 <= content[place] < 58), len(content))
        content[start:end] = draw.choice(_ODD)


class Result(NamedTuple):
    """The end of a reader's trials.

    Attributes:
        name: The reader.
        num_inputs: Inputs tried.
        num_refused: Inputs refused in one line.
        lines: Lines reached, and all lines of its modules.
        peak_mib: The most memory that the process had.
        seconds: The time that it took.
        found: What went wrong, once for each kind and place.
    """

    name: str
    num_inputs: int
    num_refused: int
    lines: tuple[int, int]
    peak_mib: int
    seconds: float
    found: list[str]


def try_reader(name: str, reader: Reader, num_inputs: int, num_traced: int, seed: int, keep: Path | None) -> Result:
    """Hands inputs to a reader."""
    found: dict[str, str] = {}
    reached: set[tuple[str, int]] = set()
    num_refused, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory(dir=_MEMORY if Path(_MEMORY).is_dir() else None) as folder:
        path = Path(folder) / "run" / "record" / reader.name if name == "recording" else Path(folder) / reader.name
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(num_inputs):
            content = damaged(Random(f"{seed}/{name}/{number}"), reader.seeds)
            path.write_bytes(content)
            try:
                with _limited(), _traced(reader.modules, reached, number < num_traced):
                    reader.read(path)
            except InputError as refusal:
                num_refused += 1
                if "\n" in str(refusal):
                    _note(found, f"{name}: input {number}: several lines", "lines", content, keep)
            except DdpgdError:
                num_refused += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                place = _place(error)
                _note(
                    found,
                    f"{name}: input {number}: {type(error).__name__} at {place}: {error}"[:200],
                    place,
                    content,
                    keep,
                )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    every = {(module.__file__ or "", line) for module in reader.modules for line in _lines(module)}
    lines = len(reached & every), len(every)
    return Result(name, num_inputs, num_refused, lines, peak, time.monotonic() - started, list(found.values()))


def _note(found: dict[str, str], line: str, place: str, content: bytes, keep: Path | None) -> None:
    if place not in found:
        found[place] = line
        _PROGRAM.say(line)
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{len(found)}-{place.replace('/', '_').replace(':', '-')}").write_bytes(content)


def _place(error: BaseException) -> str:
    """Returns the last line of the project that an error came through."""
    trace, place = error.__traceback__, "?"
    while trace:
        if "/ddpgd/" in trace.tb_frame.f_code.co_filename:
            place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}-{place}"


@contextmanager
def _limited() -> Iterator[None]:
    """Raises TooSlow if the block computes for too long."""
    signal.setitimer(signal.ITIMER_PROF, _LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _too_slow(*_: object) -> None:
    raise TooSlow(f"longer than {_LIMIT_S:g} s")


@contextmanager
def _traced(modules: Sequence[ModuleType], reached: set[tuple[str, int]], is_asked: bool) -> Iterator[None]:
    """Notes the lines of some modules that the block reaches."""
    if not is_asked:
        yield
        return
    files = {module.__file__ for module in modules}

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def _lines(module: ModuleType) -> set[int]:
    """Returns the lines of a module's functions."""
    file = module.__file__ or ""
    whole = compile(Path(file).read_text(encoding="utf-8"), file, "exec")
    found: set[int] = set()

    def add(code: CodeType, is_function: bool) -> None:
        if is_function:
            found.update(line for _, _, line in code.co_lines() if line and line != code.co_firstlineno)
        for part in code.co_consts:
            if isinstance(part, CodeType):
                add(part, is_function or bool(part.co_flags & 0x2))  # CO_NEWLOCALS: a function

    add(whole, False)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="READER")
    parser.add_argument("--readers", action="store_true")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--traced", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--page", type=Path)
    return _PROGRAM.run(lambda: _fuzz(parser.parse_args(argv)))


def _fuzz(asked: Any) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        known = readers(Path(folder) / "run")
        if asked.readers:
            print("\n".join(known))
            return True
        if unknown := sorted(set(asked.names) - known.keys()):
            raise InputError(f"there is no reader {unknown[0]!r}; readers are {', '.join(known)}")
        signal.signal(signal.SIGPROF, _too_slow)
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_BYTES, resource.RLIM_INFINITY))
        results = []
        for name in asked.names or known:
            results.append(try_reader(name, known[name], asked.inputs, asked.traced, asked.seed, asked.keep))
            _PROGRAM.say(row(results[-1]))
    lines = ["| reader | inputs | refused in one line | lines reached | memory | seconds | faults |", "|---" * 7 + "|"]
    lines += [row(result) for result in results]
    lines += ["", *(f"- {line}" for result in results for line in result.found)]
    command = f"python -m tools.fuzz --inputs {asked.inputs} --seed {asked.seed}"
    show([*lines, f"- command: `{command}`", f"- commit: {commit()}"], asked.page, "fuzz")
    return not any(result.found for result in results)


def row(result: Result) -> str:
    """Returns a row of the table."""
    reached, every = result.lines
    return (
        f"| {result.name} | {result.num_inputs:,} | {result.num_refused / result.num_inputs:.0%} | {reached} of {every} | "
        f"{result.peak_mib} MiB | {result.seconds:.0f} | {len(result.found)} |"
    )


if __name__ == "__main__":
    sys.exit(main())
