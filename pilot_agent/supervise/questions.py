"""Finding out what settings can't say, before there is an event loop: Envoy's build, the address of a name.

`desired.work_out` says what it needs to know (`Desired.unknown`), and is asked again with the answers. Under the event
loop `change` asks the same, without waiting.
"""

from collections.abc import Callable

from pilot_agent.clock import Clock, Deadline
from pilot_agent.envoy.build import Build, extensions_argv, read_build
from pilot_agent.envoy.command import Launch
from pilot_agent.envoy.process import Child
from pilot_agent.supervise.desired import Answers, Desired

ADDRESS_WITHIN_S = 15.0
"""As long as Istio's agent waits for the address of statsd."""
STEP_S = 0.1
_ADDRESS = "address:"


def names_to_resolve(desired: Desired) -> list[str]:
    return [each.removeprefix(_ADDRESS) for each in desired.unknown if each.startswith(_ADDRESS)]


def build_command(desired: Desired) -> Launch | None:
    """What to ask Envoy when its build must be known; `build_of` reads the answer."""
    return desired.launch._replace(argv=extensions_argv(desired.binary)) if "build" in desired.unknown else None


def build_of(desired: Desired, output: str) -> Build:
    return read_build(desired.binary, output)


def best_address(found: list[tuple[int, str]]) -> str | None:
    """Of pairs (address family, address) the first IPv4 one, else the first: Istio's order for statsd."""
    import socket

    ranked = sorted(found, key=lambda pair: pair[0] != socket.AF_INET)
    return ranked[0][1] if ranked else None


def answer(desired: Desired, answers: Answers, clock: Clock, is_stopping: Callable[[], bool]) -> Answers:
    """`answers` with all that `desired` did not know. Blocks, at most `ADDRESS_WITHIN_S` for each name."""
    command = build_command(desired)
    if command is not None:
        _, output = Child(command, clock, is_quiet=True).wait()
        answers = answers._replace(build=build_of(desired, output))
    for name in names_to_resolve(desired):
        address = resolve(name, Deadline.after(ADDRESS_WITHIN_S, clock), is_stopping)
        answers = answers._replace(addresses={**answers.addresses, name: address})
    return answers


def resolve(name: str, deadline: Deadline, is_stopping: Callable[[], bool]) -> str | None:
    """The address of `name`, or None when it has none, or not in time.

    In a thread of its own: getaddrinfo can't be interrupted, and a signal must be heard meanwhile.
    """
    import socket
    import threading

    found: list[tuple[int, str]] = []

    def ask() -> None:
        try:
            for family, _, _, _, address in socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM):
                found.append((family, str(address[0])))
        except OSError:
            pass  # no such name: the caller says what that means

    thread = threading.Thread(target=ask, name="resolver", daemon=True)
    thread.start()
    while thread.is_alive() and not deadline.is_over and not is_stopping():
        thread.join(STEP_S)
    return best_address(list(found))
