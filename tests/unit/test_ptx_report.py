"""Reading machine code: loops, mixes, waits for memory, fences, occupancy; and the limits of `static.json`."""

import pytest

from tools import occupancy, sass, sass_costs
from tools.nvrtc import Job
from tools.ptx_report import Row, problems, table
from tools.sass_costs import InnerLoop, Memory

HEADER = """\t.section\t.nv.info.work,"",@"SHT_CUDA_INFO"
\t//----- nvinfo : EIATTR_REGCOUNT
        /*0000*/ \t.word\t0x00000011
\t//----- nvinfo : EIATTR_MAX_THREADS
        /*00d8*/ \t.word\t0x00000080
        /*00dc*/ \t.word\t0x00000002
        /*00e0*/ \t.word\t0x00000001
\t.section\t.text.work,"ax",@progbits
work:
.text.work:
"""


def flow(code: str) -> sass.Flow:
    """A kernel's blocks. `code`: one instruction or label a line, as nvdisasm writes them."""
    lines = [line.strip() for line in code.strip().splitlines()]
    text = [line if line.endswith(":") else f"        /*{16 * at:04x}*/    {line} ;" for at, line in enumerate(lines)]
    (kernel,) = sass.kernels(HEADER + "\n".join(text) + "\n")
    assert (kernel.name, kernel.threads) == ("work", 256)
    return kernel.flow


def test_the_inner_loop_is_the_one_with_most_arithmetic_without_loops_inside_it() -> None:
    found = sass_costs.inner_loop(
        flow("""
            S2R R0, SR_TID.X
            .L_x_0:
            LDG.E R1, desc[UR4][R2.64]
            FADD R3, R3, R1
            .L_x_1:
            LDS.128 R4, [R8]
            FFMA R9, R4, R5, R9
            FFMA R9, R6, R7, R9
            @P0 BRA `(.L_x_1)
            @P1 BRA `(.L_x_0)
            .L_x_2:
            FADD R3, R3, R1
            BRA P2, `(.L_x_2)
            EXIT
            .L_x_3:
            BRA `(.L_x_3)
        """)
    )
    assert found == InnerLoop(4, "FFMA", 0.5, 0.25, 0.0)


def test_a_matrix_product_outweighs_many_multiply_adds() -> None:
    found = sass_costs.inner_loop(
        flow("""
            .L_x_0:
            HMMA.16816.F32.BF16 R4, R8, R10, R4
            LDGSTS.E.BYPASS.128 [R75], [R72.64], !P1
            @P0 BRA `(.L_x_0)
            .L_x_1:
            FFMA R9, R4, R5, R9
            FFMA R9, R4, R5, R9
            FFMA R9, R4, R5, R9
            @P0 BRA `(.L_x_1)
            EXIT
        """)
    )
    assert found == InnerLoop(3, "HMMA", 0.333, 0.0, 0.333)


def test_of_two_ways_round_a_loop_the_one_that_copies_by_16_bytes_counts() -> None:
    found = sass_costs.inner_loop(
        flow("""
            .L_x_0:
            @P1 BRA `(.L_x_1)
            LDGSTS.E.64 [R75], [R72.64], !P1
            LDGSTS.E.64 [R75+0x80], [R72.64], !P1
            BRA `(.L_x_2)
            .L_x_1:
            LDGSTS.E.BYPASS.128 [R75], [R72.64], !P1
            .L_x_2:
            @P2 BRA `(.L_x_3)
            HMMA.16816.F32.BF16 R4, R8, R10, R4
            .L_x_3:
            @P3 BRA `(.L_x_4)
            FADD R3, R3, R1
            .L_x_4:
            @P0 BRA `(.L_x_0)
            EXIT
        """)
    )
    assert found == InnerLoop(6, "HMMA", 0.167, 0.0, 0.167)


def test_ways_that_come_back_from_the_kernels_end_are_no_loops() -> None:
    """Code for warps whose threads have parted, and rare cases, stand at the end and jump back."""
    parted = flow("""
        @P0 BRA `(.L_x_2)
        .L_x_0:
        BRA.DIV UR4, `(.L_x_1)
        SHFL.BFLY PT, R5, R6, 0x1, 0x1f
        FADD R6, R5, R6
        EXIT
        .L_x_1:
        WARPSYNC.COLLECTIVE R4, `(.L_x_0)
        BRA `(.L_x_0)
        .L_x_2:
        FADD R6, R6, R6
        BRA `(.L_x_0)
    """)
    assert parted.loops == {}
    assert sass_costs.inner_loop(parted) is None


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        ("LDG.E R1, [R2.64]\nLDG.E R3, [R4.64]\nFADD R5, R1, R3\nEXIT", 1),
        ("LDG.E R1, [R2.64]\nFADD R5, R1, R1\nLDG.E R3, [R4.64]\nFADD R5, R5, R3\nEXIT", 2),
        ("LDG.E.64 R2, [R8.64]\nLDG.E R4, [R2.64]\nFADD R5, R4, R4\nEXIT", 2),
        ("LDG.E.128 R4, [R8.64]\nFADD R1, R7, R7\nFADD R1, R4, R4\nEXIT", 1),
        ("LDG.E R4, [R8.64]\nLOP3.LUT P0, RZ, R4, 0x1, RZ, 0xc0, !PT\nEXIT", 1),
        ("LDG.E R4, [R8.64]\nISETP.NE.AND P0, PT, R4, R5, PT\nEXIT", 1),
        ("LDG.E R4, [R8.64]\nSTG.E [R6.64], R4\nEXIT", 1),
        ("LDG.E R4, [R8.64]\nMOV R4, R5\nFADD R5, R4, R4\nEXIT", 0),
        ("ATOMG.E.ADD.STRONG.GPU PT, R3, [R6.64], R1\nISETP.NE.AND P2, PT, R3, R4, PT\nEXIT", 1),
        ("LDGSTS.E.128 [R75], [R72.64]\nFADD R1, R75, R72\nEXIT", 0),
        # the longer of two ways; a loop counts once
        ("LDG.E R1, [R2.64]\n@P0 BRA `(.L_x_0)\nLDG.E R3, [R1.64]\nFADD R1, R3, R3\n.L_x_0:\nFADD R5, R1, R1\nEXIT", 2),
        (".L_x_0:\nLDG.E R1, [R2.64]\nFADD R5, R1, R5\n@P0 BRA `(.L_x_0)\nEXIT", 1),
    ],
)
def test_waits_are_stops_for_loads_issued_after_the_last_stop(code: str, waits: int) -> None:
    assert sass_costs.memory(flow(code)).waits == waits


def test_loads_and_fences_are_counted() -> None:
    found = sass_costs.memory(
        flow("""
            LDG.E R1, [R2.64]
            MEMBAR.SC.GPU
            ATOMG.E.ADD.STRONG.GPU PT, R3, [R6.64], R1
            MEMBAR.SC.GPU
            MEMBAR.ALL.GPU
            EXIT
        """)
    )
    assert found == Memory(2, 1, {"MEMBAR.ALL.GPU": 1, "MEMBAR.SC.GPU": 2})


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "warps"),
    [
        ("80", 256, 32, 0, (64, 64)),
        ("90a", 256, 128, 0, (16, 64)),
        ("90a", 256, 32, 100 * 1024, (16, 64)),
        ("80", 256, 32, 100 * 1024, (8, 64)),
        ("90a", 1024, 64, 0, (32, 64)),
        ("86", 32, 32, 0, (16, 48)),
        ("90a", 256, 32, 228 * 1024, (0, 64)),
    ],
)
def test_occupancy(arch: str, threads: int, registers: int, shared: int, warps: tuple[int, int]) -> None:
    assert occupancy.warps(arch, threads, registers, shared) == warps


def row(kernel: str = "work", precision: str = "float32", share: float = 0.5, spills: int = 0) -> Row:
    loop = InnerLoop(80, "FFMA", share, 0.1, 0.0)
    return Row(Job("a.cu", precision, "90a"), kernel, 40, (0, 1024), spills, (48, 64), loop, Memory(3, 1, {}))


def test_what_is_refused() -> None:
    limits = {"a.cu work float32 sm_90a": 0.5, "a.cu gone float32 sm_90a": 0.0}
    assert problems([row(), row("gone", share=0.0)], limits) == []
    assert problems([row(share=0.46), row("gone", share=0.0)], limits) == []
    found = problems([row(share=0.4, spills=8), row("new")], limits)
    assert [line.partition(":")[2] for line in found] == [
        " spills 8 bytes",
        " 40.0% of the inner loop multiply and add, 50.0% in static.json; make it faster, or, if that is meant, "
        "type: python -m tools.ptx_report --write",
        " not in static.json; type: python -m tools.ptx_report --write",
        " there is no such kernel any more; type: python -m tools.ptx_report --write",
    ]


def test_precisions_with_the_same_facts_share_a_row() -> None:
    _, _, *lines = table([row(), row(precision="tf32"), row(precision="float16", share=0.25)])
    assert [line.split(" | ")[2] for line in lines] == ["float16", "float32, tf32"]
