"""Host names, ports, and whether processes on this machine reach each other."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

from gandist.doctor.figures import duration, size
from gandist.doctor.finding import Finding, fail, note, ok, warn, within
from gandist.errors import MachineError
from gandist.runtime.place import Place
from gandist.runtime.probe import Reduction, try_pair

RESOLVE_SECONDS = 10.0
USUAL_PORT = 29500  # of torchrun and accelerate

Resolve = Callable[[str], list[str]]


def resolve(name: str) -> list[str]:
    """Return the addresses of a host name."""
    found = within(RESOLVE_SECONDS, lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def host_findings(place: Place, resolver: Resolve = resolve) -> list[Finding]:
    """Look at what this machine's own name leads to: other machines connect to that, and so does gloo."""
    several = place.machines > 1
    try:
        addresses = resolver(place.host)
    except TimeoutError:
        fact = f"{place.host}: the name server gives no answer in {RESOLVE_SECONDS:g} s"
        return [warn("host name", fact, f"Every start waits for it: add '{place.host}' to /etc/hosts.")]
    except OSError as error:
        fact = f"{place.host} does not resolve ({error.strerror})"
        advice = f"Add a line with this machine's address and '{place.host}' to /etc/hosts"
        if several:
            advice += ", or name the interface: export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0"
            return [fail("host name", fact, advice)]
        return [warn("host name", fact, advice + "; on one machine gloo takes the loopback interface.")]
    fact = f"{place.host} is {', '.join(addresses[:4])}"
    named = place.environ.get("GLOO_SOCKET_IFNAME")
    if all(is_loopback(address) for address in addresses):
        if several and not named:
            advice = (
                "Other machines cannot reach that: export GLOO_SOCKET_IFNAME=eth0 (the real interface), or correct "
            )
            return [fail("host name", fact, advice + "/etc/hosts.")]
        return [ok("host name", fact + (f"; gloo takes {named}" if named else "; enough for one machine"))]
    strange = [address for address in addresses if not is_loopback(address) and not _is_own(address)]
    if strange:
        advice = "Correct /etc/hosts or the name server, or export GLOO_SOCKET_IFNAME with the real interface."
        return [warn("host name", f"{fact}, but {strange[0]} is not an address of this machine", advice)]
    return [ok("host name", fact)]


def interface_findings(place: Place) -> list[Finding]:
    """Look whether the network interfaces that gloo is told to take are there."""
    named = [name for name in place.environ.get("GLOO_SOCKET_IFNAME", "").split(",") if name]
    there = [name for _, name in socket.if_nameindex()]
    missing = [name for name in named if name not in there]
    if missing:
        fact = f"GLOO_SOCKET_IFNAME names {missing[0]}, which is not here"
        return [fail("interface", fact, f"There are: {', '.join(there)}")]
    return [ok("interface", f"gloo takes {', '.join(named)}")] if named else []


def is_loopback(address: str) -> bool:
    """Return whether an address leads back to its own machine."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _is_own(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def meeting_findings(place: Place, resolver: Resolve = resolve) -> list[Finding]:
    """Look at where the launcher says that the ranks meet."""
    address, port = place.environ.get("MASTER_ADDR"), place.environ.get("MASTER_PORT")
    if not address:
        return []
    where = f"{address}:{port}"
    try:
        addresses = resolver(address)
    except (TimeoutError, OSError) as error:
        fact = f"the ranks are to meet at {where}, which does not resolve ({error})"
        return [fail("meeting point", fact, "Give --main_process_ip an address that every machine can reach.")]
    if place.machines > 1 and all(is_loopback(one) for one in addresses):
        fact = f"the ranks of {place.machines} machines are to meet at {where}, which is the own machine for each"
        return [fail("meeting point", fact, "Give --main_process_ip the name or address of the first machine.")]
    return [ok("meeting point", f"{where} ({', '.join(addresses[:2])})" if address not in addresses else where)]


def port_findings(usual: int = USUAL_PORT) -> list[Finding]:
    """Look whether a port can be had, and whether somebody holds the one that launchers take by themselves."""
    try:
        with socket.socket() as probe:
            probe.bind(("", 0))
            free = probe.getsockname()[1]
    except OSError as error:
        advice = "A sandbox or firewall forbids sockets: ranks cannot find each other."
        return [fail("ports", f"no port can be opened ({error.strerror})", advice)]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", usual))
        except OSError:
            advice = "Another run may be here. The files in launch/ take a free one; else --main_process_port 0."
            return [note("ports", f"{free} could be opened; {usual}, which launchers take, is in use", advice)]
    return [ok("ports", f"{free} could be opened; {usual}, which launchers take, is free")]


def pair_findings(try_two: Callable[[], Sequence[Reduction]] = try_pair) -> list[Finding]:
    """Start two processes here that reduce tensors over gloo, as a launch with launch/cpu.yaml would."""
    try:
        measured = try_two()
    except MachineError as error:
        advice = "Ranks on one machine talk over the loopback interface: look for a firewall, a sandbox, a proxy."
        return [fail("two processes", str(error), advice)]
    return reduction_findings("two processes", "over gloo on this machine", measured)


def reduction_findings(check: str, between: str, measured: Sequence[Reduction]) -> list[Finding]:
    """Look at measured reductions: whether the sums are right, and how fast they came."""
    wrong = [one for one in measured if not one.correct]
    if wrong:
        fact = f"an all-reduce of {size(wrong[0].bytes)} {between} gives a wrong sum"
        advice = "Do not train: a network card, a GPU or their driver changes bits. Try NCCL_P2P_DISABLE=1 once."
        return [fail(check, fact, advice)]
    times = ", ".join(
        f"{size(one.bytes)} in {duration(one.seconds)} ({one.bytes_per_second / 1e9:.2f} GB/s)" for one in measured
    )
    figures = {f"all_reduce_{one.bytes}_bytes_seconds": one.seconds for one in measured}
    return [ok(check, f"all-reduce {between}: {times}", **figures)]
