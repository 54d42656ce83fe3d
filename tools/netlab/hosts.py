"""Hosts on one machine: network namespaces with a link each to a bridge, which stands in a namespace of its own."""

import ipaddress
import re
import shlex
import subprocess

from tools.netlab import cleanup as remains

NETWORK = "10.77.0.0/24"
INTERFACE = "eth0"
MAX_HOSTS = 99

_FRAME_BYTES = 1514
_BURST_S = 0.00025  # what a link lets through at once after a rest; a longer one makes short messages too fast
_PACKET_BYTES = 16384  # the most that the kernel hands on as one: a burst of 1 Gbit/s holds it whole
_QUEUE_BYTES = 256 * 1024  # what a port holds before it drops, as a small switch does
_QUEUE_S = 0.02
_UNITS = {"kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class LabError(Exception):
    """Wrong input, or a machine that cannot hold a lab: one line that says what to type or to install."""


def parse_rate(text: str) -> int | None:
    """Bits a second; None: unlimited."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(kbit|mbit|gbit)", text)
    rate = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    if not 8_000 <= rate <= 100_000_000_000:
        raise LabError(f"rate {text!r}: 8kbit to 100gbit a second, or none, is wanted, e.g. 100mbit")
    return rate


def parse_latency(text: str) -> float:
    """Seconds, one way."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(us|ms|s)", text)
    latency_s = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 1e-6 <= latency_s <= 10:
        raise LabError(f"latency {text!r}: 1us to 10s, one way, is wanted, e.g. 1ms")
    return latency_s


class Hosts:
    """The namespaces of one lab: `open`, then links and entries, then `close`, whatever happened in between."""

    def __init__(self, num_hosts: int) -> None:
        self.name = remains.new_name()
        self.folder = remains.folder(self.name)
        self.names = [f"host{k}" for k in range(num_hosts)]
        self.addresses = [str(ipaddress.ip_network(NETWORK)[k + 1]) for k in range(num_hosts)]
        self._latency_s = 0.0

    def open(self) -> None:
        try:
            self.folder.mkdir(mode=0o755)
        except OSError as error:
            raise LabError(f"no folder for the lab: {error}") from error
        self._write_entry()
        switch = f"{self.name}-switch"
        self._make_namespace(switch)
        ip(switch, "link add bridge type bridge")
        ip(switch, "link set bridge up")
        for host, address in zip(self.names, self.addresses, strict=True):
            inside = f"{self.name}-{host}"
            self._make_namespace(inside)
            ip(switch, f"link add {host} type veth peer name {INTERFACE} netns {inside}")
            ip(switch, f"link set {host} master bridge up")
            ip(inside, f"link set {INTERFACE} addrgenmode none")  # no IPv6, which would speak up by itself
            ip(inside, f"address add {address}/{NETWORK.partition('/')[2]} dev {INTERFACE}")
            ip(inside, f"link set {INTERFACE} gso_max_size {_PACKET_BYTES}")
            ip(inside, f"link set {INTERFACE} up")
            ip(inside, "link set lo up")

    def close(self) -> None:
        remains.remove(self.name)

    def entry(self, host: int) -> list[str]:
        """Returns the words before a command that run it on that host."""
        return ["sh", str(self.folder / "enter"), self.names[host]]

    @property
    def agent(self) -> str:
        """Returns the program that mpirun calls in place of `ssh`, with a host and words for its shell."""
        return f"sh {self.folder / 'agent'}"

    def set_latency(self, latency_s: float) -> None:
        """Every packet leaves its host so much later; once, before the first `set_rate`."""
        for host in self.names:
            delay = f"netem delay {round(latency_s * 1e6)}us limit 1000000"
            try:
                tc(f"{self.name}-{host}", f"qdisc replace dev {INTERFACE} root handle 1: {delay}")
            except LabError as error:
                raise LabError(f"latency: the kernel here has no netem ({error}); leave --latency out") from error
        self._latency_s = latency_s

    def set_rate(self, rate: int | None) -> None:
        """Limits each link in both directions: what leaves the host, and what the bridge sends to it."""
        for host in self.names:
            _limit(f"{self.name}-switch", host, "root handle 2:", rate)
            place = "parent 1:1 handle 2:" if self._latency_s else "root handle 2:"
            _limit(f"{self.name}-{host}", INTERFACE, place, rate)

    def set_link(self, host: int, state: str) -> None:
        """`up` or `down`, at the bridge's end, as when a cable is pulled: the host keeps its address."""
        ip(f"{self.name}-switch", f"link set {self.names[host]} {state}")

    def _make_namespace(self, name: str) -> None:
        try:
            _call(["ip", "netns", "add", name])
        except LabError as error:
            raise LabError(f"no network namespaces here ({error}); in a container they want --privileged") from error

    def _write_entry(self) -> None:
        """Each entry gets a host name, shared memory of its own, and a file that knows the other hosts."""
        table = ["127.0.0.1 localhost"]
        table += [f"{address} {host}" for address, host in zip(self.addresses, self.names, strict=True)]
        (self.folder / "hosts").write_text("\n".join(table) + "\n")
        inside = (
            'echo "$0" >/proc/sys/kernel/hostname && mount -t tmpfs netlab /dev/shm && '
            f'mount --bind {self.folder}/hosts /etc/hosts && exec "$@"'
        )
        enter = f'exec setpriv --pdeathsig TERM ip netns exec "{self.name}-$1" unshare --uts sh -c {shlex.quote(inside)} "$@"'
        agent = f'host=$1\nshift\nexec sh {self.folder}/enter "$host" sh -c "$*"'
        for name, text in (("enter", enter), ("agent", agent)):
            (self.folder / name).write_text(text + "\n")  # for sh, since files in /run may not be executable


def ip(namespace: str, words: str) -> None:
    _call(["ip", "-n", namespace, *words.split()])


def tc(namespace: str, words: str) -> None:
    _call(["tc", "-n", namespace, *words.split()])


def _limit(namespace: str, device: str, place: str, rate: int | None) -> None:
    if rate is None:
        listed = _call(["tc", "-n", namespace, "qdisc", "show", "dev", device])
        if " tbf 2: " in listed:
            tc(namespace, f"qdisc delete dev {device} {place}")
        return
    burst = max(2 * _FRAME_BYTES, round(rate / 8 * _BURST_S))
    queue = burst + max(_QUEUE_BYTES, round(rate / 8 * _QUEUE_S))
    tc(namespace, f"qdisc replace dev {device} {place} tbf rate {rate}bit burst {burst} limit {queue}")


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise LabError(f"{shlex.join(command)}: {said}")
    return done.stdout
