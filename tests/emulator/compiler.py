"""From the text of a CUDA unit to a shared object: preprocess, rewrite `__shared__`, compile, keep by hash."""

import ctypes
import functools
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import compile_cache
from compile_cache import digest

HERE = Path(__file__).resolve().parent
ENGINE = HERE / "engine"
SHIM = HERE / "shim"
INCLUDED = ("cuda.hpp", "scheduler.hpp", "math.hpp", "warp.hpp", "kernel.hpp")
"""The headers of the engine that units see."""
TWINS = ("ptx.cuh", "grid.cuh")

FLAGS = (
    *("-std=c++20", "-O2", "-ftree-vectorize", "-fpeel-loops", "-g1", "-w"),
    *("-fPIC", "-shared", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-threadsafe-statics"),
    *("-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv"),
)
# Traps find an index outside a shared or local array, and a float4 read at a wrong address.
CHECKS = ("-fsanitize=bounds,alignment", "-fsanitize-undefined-trap-on-error")

PARENTHESES = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
BOUNDS = rf"EMULATOR_BOUNDS\s*(?P<bounds>{PARENTHESES})"
BEFORE_NAME = rf"(?:\s+|inline\b|__attribute__\s*{PARENTHESES}|EMULATOR_BOUNDS\s*{PARENTHESES})*"
KERNEL = re.compile(rf'extern\s*"C"(?P<before>{BEFORE_NAME}void\b{BEFORE_NAME})\b(?P<name>\w+)\s*\(')
UNROLL = re.compile(r"^[ \t]*#pragma unroll[ \t]*(?:\(?(?P<times>\d+)\)?)?.*$", re.MULTILINE)
DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+(?P<type>[^;{}]*?)\b(?P<name>\w+)\s*\[\s*\]\s*;")
ALIGNMENT = re.compile(r"__attribute__\s*\(\(\s*aligned\s*\([^()]*\)\s*\)\)|alignas\s*\([^()]*\)")
STATIC_SHARED = re.compile(r"(?:\bstatic\s+)?\b__shared__\s+(?P<declaration>[^;{}]*);")
NESTED = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|<[^<>]*>")


class CompileError(Exception):
    """The compiler's messages."""


@functools.cache
def machine() -> tuple[str, ...]:
    """All that the compiled code depends on beside its text: the compiler, and instructions that this CPU has."""
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    has = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    fast = {"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"} <= has
    return (version, *(("-march=x86-64-v3",) if fast else ()))


def run_gcc(arguments: Sequence[str], text: str | None = None) -> str:
    done = subprocess.run(["g++", *machine()[1:], *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr)
    return done.stdout


def keep(target: Path, make: Callable[[Path], object]) -> Path:
    """`target` in the cache; made by one process if it is not there, and put there whole."""
    if compile_cache.used(target):
        return target
    with compile_cache.one_at_a_time(target):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                made = Path(folder) / "made.so"
                make(made)
                made.rename(target)
    return target


def headers(folder: Path) -> list[bytes]:
    """Names and contents of everything in `folder` that a unit may include."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".h", ".hpp", ".cuh", ".cu", ".cpp", ".inl"})
    return [part for path in files for part in (str(path.relative_to(folder)).encode(), path.read_bytes())]


@functools.cache
def digest_of(*files: Path) -> str:
    """Name for what is compiled with these files, by this compiler and this module."""
    contents = [part for file in sorted(files) for part in (file.name.encode(), file.read_bytes())]
    return digest(*machine(), *FLAGS, *CHECKS, Path(__file__).read_bytes(), *contents)


@functools.cache
def scheduler() -> ctypes.CDLL:
    """The scheduler, whose symbols every unit finds because it is loaded for all."""
    compile_cache.remove_unused()
    sources = list(map(str, sorted(ENGINE.glob("*.cpp"))))
    target = compile_cache.folder() / f"scheduler-{digest_of(*ENGINE.iterdir())}.so"
    path = keep(target, lambda made: run_gcc([*FLAGS, *sources, "-o", str(made)]))
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def translate(options: Sequence[str]) -> tuple[list[str], list[Path]]:
    """NVRTC's options as g++'s: definitions, and the folders to include from. Others mean nothing here."""
    flags: list[str] = []
    folders: list[Path] = []
    ignored: tuple[str, ...] = ("-std=", "--std=", "-arch", "--gpu-architecture", "--use_fast_math", "-use_fast_math")
    ignored += (
        "--fmad",
        "-fmad",
        "-lineinfo",
        "--generate-line-info",
        "-ftz",
        "--ftz",
        "-default-device",
        "--device-as-default",
        "--ptxas-options",
        "-O",
    )
    remaining = iter(options)
    for option in remaining:
        name, _, value = option.partition("=")
        if name in {"-D", "-I", "-U"}:
            option = name + (value or next(remaining))
        elif name in {"--define-macro", "--include-path"}:
            option = ("-D" if name == "--define-macro" else "-I") + (value or next(remaining))
        if option.startswith("-I"):
            folders.append(Path(option[2:]))
        elif option.startswith(("-D", "-U")):
            flags.append(option)
        elif not option.startswith(ignored):
            raise CompileError(f"unrecognised option {option}")
    return flags, folders


def rewrite(text: str) -> str:
    """Shared arrays and unrolling as g++ knows them; needs preprocessed text, because headers hold some."""

    def dynamic(match: re.Match[str]) -> str:
        before = text[: match.start()]
        if before.count("{") - before.count("}") <= 1:
            raise CompileError(f"the emulator wants `extern __shared__ {match['name']}[]` inside a function")
        kind = ALIGNMENT.sub("", match["type"]).strip()
        return f"{kind}* const {match['name']} = reinterpret_cast<{kind}*>(emulator::dynamic_shared);"

    def static(match: re.Match[str]) -> str:
        names, before = match["declaration"], ""
        while names != before:
            before, names = names, NESTED.sub("", names)
        shares = " ".join(
            f"[[maybe_unused]] static const bool emulator_{name} = emulator::share(&{name}, sizeof {name});"
            for name in (part.split()[-1] for part in names.split(","))
        )
        aligned = re.sub(r"\balignas\s*(\([^()]*\))", r"__attribute__((aligned\1))", match["declaration"])
        return f"static {aligned}; {shares}"

    def unroll(match: re.Match[str]) -> str:
        return f"#pragma GCC unroll {match['times'] or 8}"

    return UNROLL.sub(unroll, STATIC_SHARED.sub(static, DYNAMIC_SHARED.sub(dynamic, text)))


def table(text: str) -> tuple[str, str]:
    """The text without launch bounds, and the list of its kernels that Python reads."""
    rows = {}
    for match in KERNEL.finditer(text):
        bounds = re.search(BOUNDS, match["before"])
        limit = f"emulator::bounds{bounds['bounds'] if bounds else '()'}"
        rows[match["name"]] = f'emulator::kernel<{match["name"]}>("{match["name"]}", {limit}),'
    exported = 'extern "C" __attribute__((visibility("default")))'
    found = f"{exported} const emulator::Kernel emulator_kernels[] = {{ {' '.join(rows.values())} {{}} }};\n"
    return re.sub(BOUNDS, "", text), found


def compile_unit(text: str, options: Sequence[str] = (), name: str = "unit.cu") -> Path:
    """The shared object of one unit, compiled at most once for the same text, options, headers and compiler."""
    flags, folders = translate(options)
    contents = [part for folder in folders for part in headers(folder)]
    key = digest(digest_of(*(ENGINE / file for file in INCLUDED), *SHIM.iterdir()), name, text, *flags, *contents)

    def make(made: Path) -> None:
        include = ["-I", str(SHIM), *(f"-I{folder}" for folder in folders), "-I", str(ENGINE)]
        # A header beside its includer is found before the shim, so twins come first and their guards shut out the others.
        used = [text.encode(), *contents]
        twins = "".join(f'#include "{twin}"\n' for twin in TWINS if any(twin.encode() in part for part in used))
        # The namespace lets g++ drop what no kernel uses and inline the rest.
        whole = f'#include "cuda.hpp"\nnamespace {{\n{twins}# 1 "{name}"\n{text}\n}}\n'
        expanded, kernels = table(rewrite(run_gcc([*FLAGS[:1], "-E", "-x", "c++", *flags, *include, "-"], whole)))
        run_gcc([*FLAGS, *CHECKS, "-fpreprocessed", "-x", "c++", "-", "-o", str(made)], expanded + kernels)

    return keep(compile_cache.folder() / f"unit-{key}.so", make)
