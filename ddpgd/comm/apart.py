"""No exchange: each rank goes on with what it has itself."""

from ddpgd.comm.compressor import Array


class Apart:
    """`Compressor` that hands nothing to anybody: for steps after which ranks differ until they combine."""

    name = "none"
    needs_host = False
    bytes_sent = 0

    def __init__(self) -> None:
        self.residuals: dict[str, Array] = {}
        self.shared: dict[str, Array] = {}

    def combine(self, round: int, grads: Array, tail: Array) -> None:
        pass
