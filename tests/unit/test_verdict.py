"""The verdict names the rank that others wait for; a row's words, and the table of them."""

from collections.abc import Sequence

import pytest

from ddpgd.comm.whereabouts import (
    COLLECTIVES,
    DONE,
    EVALUATION,
    EXCHANGE,
    GRADIENTS,
    LOADING,
    RECEIVE,
    SEND,
    UPDATE,
)
from ddpgd.watch.rows import Row, table
from ddpgd.watch.verdict import verdict

ALL_TO_ALL, ALL_GATHER, ALL_REDUCE = map(COLLECTIVES.index, ("all-to-all", "all-gather", "all-reduce"))


def computing(rank: int, step: int = 40, **given: object) -> Row:
    return Row(rank, "abc"[rank], 100 + rank, activity=GRADIENTS, step=step, entered=80, **given)  # type: ignore[arg-type]


def waiting(rank: int, kind: int = ALL_TO_ALL, entered: int = 81, **given: object) -> Row:
    settings = {"activity": GRADIENTS, "step": 40, "group": "1", "groups": {"1": entered}} | given
    return Row(rank, "abc"[rank], 100 + rank, collective=kind, entered=entered, **settings)  # type: ignore[arg-type]


CASES: list[tuple[str, Sequence[Row], str]] = [
    (
        "absent",
        [waiting(0), computing(1, source="model/network.py:80", micro_batch=3), waiting(2)],
        "rank 1 (process 101 on b) has not entered the exchange of step 41: it is in the gradients of step 41, "
        "model/network.py:80; ranks 0 and 2 wait for it",
    ),
    (
        "stopped",
        [waiting(0), waiting(1, state="is stopped"), waiting(2)],
        "rank 1 (process 101 on b) is stopped, in the exchange of step 41; ranks 0 and 2 wait for it",
    ),
    (
        "evaluates alone",
        [waiting(0), waiting(1, ALL_REDUCE, activity=EVALUATION), waiting(2)],
        "rank 1 is in the evaluation of step 40, while ranks 0 and 2 are in the exchange of step 41: collectives differ",
    ),
    (
        "a step ahead, of two ranks",
        [waiting(0, step=41), waiting(1)],
        "rank 0 is in the exchange of step 42, while rank 1 is in the exchange of step 41: collectives differ",
    ),
    (
        "skipped a collective",
        [waiting(0), waiting(1, ALL_GATHER), waiting(2)],
        "rank 1 is in all-gather, collective 81, of the exchange of step 41, while ranks 0 and 2 are in all-to-all, "
        "collective 81, of the exchange of step 41: collectives differ",
    ),
    (
        "skipped a collective, and met others of another kind",
        [waiting(0, ALL_REDUCE, 83), waiting(1)],
        "rank 0 is in all-reduce, collective 83, of the exchange of step 41, while rank 1 is in all-to-all, collective 81, of "
        "the exchange of step 41: collectives differ",
    ),
    (
        "a link is cut",
        [waiting(0), waiting(1), waiting(2, ALL_GATHER, 82, activity=UPDATE)],
        "ranks 0 and 1 are in the exchange of step 41, and no message arrives: look at the network of a and b",
    ),
    (
        "a link is cut between the ends of steps",
        [waiting(0, entered=5820, step=42), waiting(1, entered=5821, step=42), waiting(2, entered=5819, step=41)],
        "rank 2 is in the exchange of step 42, and no message arrives: look at the network of c",
    ),
    (
        "a stage of a pipeline",
        [waiting(0, RECEIVE, 90, peer=1), computing(1), waiting(2, SEND, 70, peer=1)],
        "rank 1 (process 101 on b) has not entered the gradients of step 41: it is in the gradients of step 41; "
        "ranks 0 and 2 wait for it",
    ),
    (
        "left out a collective of a pair",
        [
            waiting(0, ALL_REDUCE, 84, activity=EXCHANGE, group="7", groups={"5": 12, "7": 4}),
            waiting(1, ALL_TO_ALL, 81, group="6", groups={"6": 13, "7": 3}),
            waiting(2, ALL_REDUCE, 85, activity=EXCHANGE, group="8", groups={"6": 12, "8": 4}),
        ],
        "rank 2 has left out all-to-all, collective 81, of the exchange of step 41, in which rank 1 waits: it is in "
        "all-reduce, collective 85, of the exchange of step 41",
    ),
    (
        "evaluates alone, in a group of its own",
        [
            waiting(0, group="2", groups={"1": 80, "2": 9}),
            waiting(1, ALL_REDUCE, activity=EVALUATION, group="1", groups={"1": 81, "2": 8}),
            waiting(2, group="2", groups={"1": 80, "2": 9}),
        ],
        "rank 1 is in the evaluation of step 40, while ranks 0 and 2 are in the exchange of step 41: collectives differ",
    ),
    (
        "left out a collective of a pair, and met the next one",
        [
            waiting(0, group="6", groups={"6": 13, "7": 3}),
            waiting(1, group="6", groups={"6": 13, "7": 4}, step=41),
            waiting(2, group="7", groups={"5": 12, "7": 4}),
        ],
        "rank 1 is in the exchange of step 42, while rank 0 is in the exchange of step 41: collectives differ",
    ),
    (
        "behind in one group, in the same exchange",
        [
            waiting(0, activity=EXCHANGE, group="1", groups={"1": 81, "2": 8}),
            waiting(1, group="2", groups={"1": 80, "2": 9}),
            waiting(2, activity=EXCHANGE, group="1", groups={"1": 81, "2": 8}),
        ],
        "rank 1 is in all-to-all, collective 81, of the exchange of step 41, while ranks 0 and 2 are in all-to-all, collective "
        "81, of the exchange of step 41: collectives differ",
    ),
    (
        "of a group that is not known",
        [waiting(0, group="0", groups={"1": 80}), waiting(1, step=41, group="0", groups={"1": 80})],
        "ranks 0 and 1 are in the exchange of step 41, and no message arrives: look at the network of a and b",
    ),
    (
        "left out a message",
        [waiting(0, RECEIVE, 90, peer=1), waiting(1, ALL_REDUCE, 81, step=42, group="1", groups={"1": 3})],
        "rank 1 has left out message from rank 1, collective 90, of the gradients of step 41, in which rank 0 waits: it is "
        "in all-reduce, collective 81, of the exchange of step 43",
    ),
    (
        "a cut link in groups",
        [
            waiting(0, group="5", groups={"5": 12, "7": 4}),
            waiting(1, group="6", groups={"6": 13, "7": 3}),
            waiting(2, group="7", groups={"5": 11, "7": 4}),
        ],
        "rank 1 is in the exchange of step 41, and no message arrives: look at the network of b",
    ),
    ("one rank", [computing(0)], "rank 0 (process 100 on a) does not move, in the gradients of step 41"),
    (
        "one is done",
        [Row(0, "a", 100, activity=DONE, step=50), waiting(1)],
        "rank 1 is in the exchange of step 41, and no message arrives: look at what joins the processes on b",
    ),
    ("all are done", [Row(rank, "a", 1, activity=DONE) for rank in range(2)], "all ranks are done"),
    (
        "two are absent",
        [waiting(0), computing(1), Row(2, "c", 102, activity=LOADING)],
        "rank 1 (process 101 on b) has not entered the exchange of step 41: it is in the gradients of step 41; rank 2 "
        "(process 102 on c) has not entered the exchange of step 41: it is in the loading of data; rank 0 waits for them",
    ),
]


@pytest.mark.parametrize(("rows", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_verdict_names_what_holds_ranks_up(rows: Sequence[Row], said: str) -> None:
    assert verdict(rows) == said


def test_a_table_has_a_line_for_each_rank_in_order() -> None:
    rows = [waiting(1, RECEIVE, 1_234, peer=0), computing(0, micro_batch=3, still_s=31.4, source="model/network.py:80")]
    assert table(rows) == [
        "rank  host  process  step  phase                                             for   where",
        "0     a     100      41    gradients: micro-batch 3                          31 s  model/network.py:80",
        "1     b     101      41    gradients: message from rank 0, collective 1,234  0 s",
    ]
