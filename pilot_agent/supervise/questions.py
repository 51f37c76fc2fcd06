"""Finding out what settings can't say, before there is an event loop: Envoy's build, the address of a name.

`desired.work_out` says what it needs to know (`Desired.unknown`), and is asked again with the answers. Under the event
loop `change` asks the same, without waiting. What surrounds the pod is looked at once, at the start.
"""

from collections.abc import Callable
from pathlib import Path

from pilot_agent.clock import Clock, Deadline
from pilot_agent.cloud.platform import CloudVariables, find_platform
from pilot_agent.envoy.build import Build, extensions_argv, read_build
from pilot_agent.envoy.command import Launch
from pilot_agent.envoy.process import Child
from pilot_agent.node.surroundings import NOTHING_AROUND, Surroundings
from pilot_agent.settings.environment import Environment
from pilot_agent.settings.paths import CREDENTIAL_SDS_SOCKET, WORKLOAD_SDS_DIRECTORY
from pilot_agent.supervise.desired import Answers, Desired, Inputs, work_out

ADDRESS_WITHIN_S = 15.0
"""As long as Istio's agent waits for the address of statsd."""
STEP_S = 0.1
_ADDRESS = "address:"


def find_out(
    inputs: Inputs, clock: Clock, is_stopping: Callable[[], bool], *, needs_binary: bool = True
) -> tuple[Inputs, Desired]:
    """What should run, once everything it depends on is known; `inputs` with the answers. Raises SettingsError."""
    surroundings, said = look_around(inputs)
    answers = inputs.answers._replace(surroundings=surroundings, warnings=said)
    inputs = inputs._replace(answers=answers)
    desired = work_out(inputs, needs_binary=needs_binary)
    answers = answers._replace(annotations=dict(desired.settings.annotations))
    if not desired.unknown:
        return inputs._replace(answers=answers), desired
    inputs = inputs._replace(answers=answer(desired, answers, clock, is_stopping))
    return inputs, work_out(inputs, needs_binary=needs_binary)


def look_around(inputs: Inputs) -> tuple[Surroundings, tuple[str, ...]]:
    """The cloud and the sockets of others, and what went wrong on the way.

    Raises SettingsError for a workload socket that should be served by somebody and is not.
    """
    if inputs.flags.config_dir:
        return NOTHING_AROUND, ()  # local mode has no use for either
    environment = Environment(inputs.variables)
    cloud = find_platform(CloudVariables.of(environment))
    surroundings = Surroundings(cloud.platform)
    name = environment.text("WORKLOAD_IDENTITY_SOCKET_FILE")
    directory, credential = Path(WORKLOAD_SDS_DIRECTORY), Path(CREDENTIAL_SDS_SOCKET)
    if name == "socket" and not (directory / name).exists() and not credential.exists():
        return surroundings, cloud.warnings
    from pilot_agent.uds.probe import find_workload_socket, is_serving_http2

    workload = find_workload_socket(directory, name)
    stale = () if workload.state != "stale" else (f"nobody answers on {workload.path}: taken for a leftover",)
    surroundings = surroundings._replace(
        has_workload_sds=workload.is_external, has_credential_socket=is_serving_http2(credential)
    )
    return surroundings, (*cloud.warnings, *stale)


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
    if command is not None and desired.binary.is_absolute():
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
