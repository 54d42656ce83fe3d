"""The whereabouts of ranks: words that each stores as it goes, so that others can say what it does when nothing moves.

A rank stores into the words of its own thread, which nobody reads unless its run is watched:

    >>> from ddpgd.comm import whereabouts
    >>> here = whereabouts.here()
    >>> here[whereabouts.ACTIVITY] = whereabouts.GRADIENTS
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ACTIVITY, STEP, MICRO_BATCH, COMPUTED, COLLECTIVE, PEER, MESSAGES, SAVED, GROUP = range(9)
"""Words. MICRO_BATCH: the one that is computed; COMPUTED: grows with each; COLLECTIVE: the kind that the rank is in, as its
place from 1 in COLLECTIVES, or NONE; PEER: the other rank of a message; MESSAGES: how many were waited for; SAVED: pieces of
checkpoints written; GROUP: the group of the last collective, as its place from 0 in the words that follow."""
NUM_GROUPS = 16
"""So many groups of a rank are told apart; collectives of more count as one, that of place NUM_GROUPS."""
IDS = GROUP + 1
"""The first of the words that name this rank's groups, by numbers that all ranks of a group have in common; 0: none."""
COUNTS = IDS + NUM_GROUPS + 1
"""The first of the words that count the collectives entered in each group."""
NUM_WORDS = COUNTS + NUM_GROUPS + 1
NONE = 0

UNKNOWN = -1
SETUP, LOADING, RECORD, EVALUATION, CHECKPOINT, INPUT, GRADIENTS, EXCHANGE, UPDATE, DONE = range(10)
"""Values of ACTIVITY, in the order of a run after each step. UNKNOWN: of a rank that does not answer."""
ACTIVITIES = (
    *("set-up", "loading", "record", "evaluation", "checkpoint", "input", "gradients", "exchange", "update"),
    "end of the run",
)

COLLECTIVES = (
    *("", "all-to-all", "all-to-all set-up", "all-gather", "all-reduce", "agreement", "barrier", "connection", "split"),
    *("message to", "message from"),
)
"""Names of the values of COLLECTIVE; of a message, before its peer."""
SEND, RECEIVE = COLLECTIVES.index("message to"), COLLECTIVES.index("message from")

_own = threading.local()


def here() -> memoryview:
    """Returns the words of this thread's rank, int64 (NUM_WORDS,): whoever stores often keeps them."""
    words: memoryview | None = getattr(_own, "words", None)
    if words is None:
        words = _own.words = memoryview(bytearray(8 * NUM_WORDS)).cast("q")
    return words


@contextmanager
def stored_in(words: memoryview) -> Iterator[None]:
    """Makes `words`, int64 (NUM_WORDS,), those of this thread's rank until the block ends."""
    before = here()
    _own.words = words
    try:
        yield
    finally:
        _own.words = before
