"""The command itself, in network namespaces: exit codes, what it prints, what it leaves, and from tool to tool."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.namespaces import Namespace, connect, missing, namespace
from tests.unit.interception.recordings import recording, recordings

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

COMMAND = (sys.executable, "-m", "pilot_agent.commands.main", "istio-iptables")
INJECTED = ("-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020")
TPROXY = ("-u", "0", "-g", "1337", "-m", "TPROXY", "-i", "*", "-b", "*")
HERE, THERE, HERE6 = "10.9.0.2", "10.9.0.3", "fd00:9::2"


class Done(NamedTuple):
    code: int
    output: str
    errors: str


@pytest.fixture
def pod() -> Iterator[Namespace]:
    with namespace("tool") as here, namespace("peer") as there:
        connect(here, f"{HERE}/24", there, f"{THERE}/24")
        yield here


def tool(where: Namespace | None, *flags: str, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Done:
    inside = where.prefix if where is not None else ()
    done = subprocess.run(
        [*inside, *prefix, *COMMAND, *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(env or {})},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def succeeded(where: Namespace | None, *flags: str, env: dict[str, str] | None = None) -> str:
    done = tool(where, *flags, env=env)
    assert done.code == 0, done
    assert done.errors == ""
    return done.output


def state(where: Namespace) -> str:
    """Everything that is there, to be compared."""
    commands = ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save")
    saved = [line for each in commands for line in where.run(each).splitlines() if line.startswith("-A")]
    rules = [where.run("ip", family, "rule") for family in ("-4", "-6")]
    return "\n".join([*saved, where.run("nft", "--stateless", "list", "ruleset", "inet"), *rules])


def test_a_second_run_changes_nothing_and_status_says_so(pod: Namespace) -> None:
    assert tool(pod, "status", *INJECTED).code == 2
    assert "changes made (iptables-nft)" in succeeded(pod, *INJECTED)
    before = state(pod)
    assert "nothing is changed" in succeeded(pod, *INJECTED)
    assert state(pod) == before
    first, _, family, *_ = succeeded(pod, "status", *INJECTED).splitlines()
    assert first == "what is there is what these flags want (iptables-nft)"
    assert family == "IPv4 (iptables-nft): a packet that is sent"
    assert json.loads(succeeded(pod, "status", *INJECTED, "--json"))["matches"] is True
    changed = tool(pod, "status", *INJECTED, "-o", "9999", "--json")
    assert changed.code == 2
    texts = [each["text"] for each in json.loads(changed.output)["iptables"]]
    assert "-A ISTIO_OUTPUT -p udp -m udp --dport 9999 -j RETURN" in texts
    assert state(pod) == before


@pytest.mark.parametrize(
    ("more", "row"),
    [
        ((), r" +9 +1 +60 ISTIO_REDIRECT +all +\* +\* +0.0.0.0/0 +0.0.0.0/0 +everything else: to Envoy, as outbound"),
        (("--native-nftables",), r" +9 +1 +60 counter jump istio-redirect +everything else: to Envoy, as outbound"),
    ],
    ids=["iptables", "native"],
)
def test_status_shows_what_was_counted_and_then_what_differs(pod: Namespace, more: tuple[str, ...], row: str) -> None:
    nothing = tool(pod, "status", *INJECTED, *more)
    assert "\nno rules of Istio are there\n\na run would change:\n" in nothing.output
    succeeded(pod, *INJECTED, *more)
    with pod.call(socket.socket) as client, pytest.raises(ConnectionRefusedError):  # nobody is at 15001
        client.connect((THERE, 80))
    assert re.search(f"^{row}$", succeeded(pod, "status", *INJECTED, *more), re.MULTILINE)
    other = tool(pod, "status", "-u", "1338", *INJECTED[2:], *more)
    assert other.code == 2
    assert re.search(row.partition(" +every")[0], other.output)
    told = other.output.splitlines()
    assert re.fullmatch(r"what is there is not what these flags want \(\S+\): \d+ changes, at the end", told[0])
    assert told.index("a run would change:") > next(i for i, line in enumerate(told) if re.search("skuid|UID", line))


def test_plan_changes_nothing_and_says_it_for_people_and_programs(pod: Namespace) -> None:
    before = state(pod)
    text = succeeded(pod, "plan", *TPROXY)
    assert "  + mangle -A ISTIO_DIVERT -j ACCEPT" in text
    assert "  ip rule add fwmark 1337 lookup 133" in text
    data = json.loads(succeeded(pod, "plan", *TPROXY, "--native-nftables", "--json"))
    assert data["tool"] == "nft" and data["nft"] and data["routes"]
    assert state(pod) == before


@pytest.mark.parametrize("name", ["default-v4", "tproxy-mark-table", "dns-all-dual", "owner-groups-include"])
def test_flags_and_variables_of_a_recording_give_its_rules(pod: Namespace, name: str) -> None:
    case = recording(name)
    for address in case.addresses:
        if address.startswith(f"{HERE}/"):
            continue
        pod.run("ip", "addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    succeeded(pod, *case.args, env=case.env)
    saved = [line.rstrip() for line in pod.run("iptables-nft-save").splitlines() if line.startswith("-A")]
    recorded = [line for lines in case.saved[4].values() for line in lines if line.startswith("-A")]
    assert sorted(saved) == sorted(recorded)
    rules = [line.split(":", 1)[1].strip() for line in pod.run("ip", "rule").splitlines() if "fwmark" in line]
    assert rules == [line.split(":", 1)[1].strip() for line in case.ip_rules[4] if "fwmark" in line]


def test_from_tool_to_tool_and_back_with_nothing_left(pod: Namespace) -> None:
    clean = state(pod)
    wanted: dict[tuple[str, ...], str] = {}
    runs = [
        INJECTED,
        (*TPROXY, "--native-nftables"),
        (*TPROXY, "--force-iptables-binary", "legacy"),
        (*INJECTED, "--native-nftables"),
        TPROXY,
    ]
    for flags in runs:
        succeeded(pod, *flags)
        wanted[flags] = state(pod)
        assert tool(pod, "status", *flags).code == 0, flags
        succeeded(pod, "--cleanup-only")
        assert state(pod) == clean, flags
    for flags in [*runs, *reversed(runs), runs[2], runs[0], runs[3]]:
        succeeded(pod, *flags)
        # Which of iptables' back ends is used goes by what is there: legacy stays legacy.
        is_same = state(pod) == wanted[flags]
        assert is_same or tool(pod, "status", *flags).code == 0, flags
    succeeded(pod, "--cleanup-only")
    assert state(pod) == clean


def test_validation_tells_captured_from_not_captured_as_root_and_as_the_proxy(pod: Namespace) -> None:
    check = ("--skip-rule-apply", "--run-validation", "--probe-timeout", "1s")
    failed = tool(pod, *check)
    assert failed.code == 126
    assert "iptables validation failed; workload is not ready for Istio." in failed.errors
    assert "IPv4: a connection to 127.0.0.6:15002 did not reach 127.0.0.1 within 1 s" in failed.errors
    succeeded(pod, *INJECTED)
    assert "Validation passed" in succeeded(pod, *check)
    as_proxy = tool(pod, *check, prefix=("setpriv", "--reuid", "1337", "--regid", "1337", "--clear-groups"))
    assert as_proxy.code == 0, as_proxy
    as_other = tool(pod, *check, prefix=("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"))
    assert as_other.code == 126
    assert "which is not the proxy's" in as_other.output


def test_validation_names_the_family_that_is_missing(pod: Namespace) -> None:
    pod.run("ip", "addr", "add", f"{HERE6}/64", "dev", "eth0", "nodad")
    succeeded(pod, *INJECTED)
    failed = tool(pod, *INJECTED, "--dual-stack", "--skip-rule-apply", "--run-validation", "--probe-timeout", "1s")
    assert failed.code == 126
    assert "IPv6: " in failed.errors and "IPv4: " not in failed.errors


def test_a_dry_run_changes_nothing_and_writes_istios_record(pod: Namespace, tmp_path: Path) -> None:
    before, record = state(pod), tmp_path / "record"
    case = recording("default-v4")
    output = succeeded(pod, *case.args, "--dry-run", env={"DRY_RUN_FILE_PATH": str(record)})
    assert "dry-run mode, no rule changes will be made" in output
    text = [line for lines in case.restore_input for line in lines]
    assert record.read_text().splitlines() == ["iptables-save", "ip6tables-save", *text, "iptables-save"]
    native = succeeded(pod, *case.args, "--dry-run", "--native-nftables")
    assert all(line in native for line in case.nft)
    assert state(pod) == before
    assert tool(pod, "--dry-run", env={"DRY_RUN_FILE_PATH": "/nowhere/record"}).code == 1


def test_a_namespace_is_entered_by_path_name_and_pid(pod: Namespace) -> None:
    inside = subprocess.Popen([*pod.prefix, "sleep", "60"])
    try:
        for where in (pod.name, f"/run/netns/{pod.name}"):
            succeeded(None, *INJECTED, "--network-namespace", where)
            assert "ISTIO_OUTPUT" in state(pod)
            succeeded(None, "--cleanup-only", "--network-namespace", where)
            assert "ISTIO_OUTPUT" not in state(pod)
        pod.run("true")  # it has entered the namespace by now
        succeeded(None, *INJECTED, env={"NETWORK_NAMESPACE": str(inside.pid), "CNI_MODE": "true"})
        assert "ISTIO_OUTPUT" in state(pod)
    finally:
        inside.kill()
        inside.wait()
    gone = tool(None, *INJECTED, "--network-namespace", "no-such-namespace")
    assert (gone.code, gone.errors) == (
        1,
        "Error: network namespace /run/netns/no-such-namespace: No such file or directory\n",
    )


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--no-such-flag",), 255, "unknown flag: --no-such-flag"),
        (("-y",), 255, "unknown flag: -y"),
        (("--iptables-probe-port", "70000"), 255, "70000"),
        (("--dry-run=banana",), 255, "banana"),
        (("-b", "99999"), 1, "--istio-inbound-ports: '99999'"),
        (("-x", "-b", "*"), 1, "--istio-service-exclude-cidr: '-b'"),
        (("--force-iptables-binary", "foo"), 1, 'invalid FORCE_IPTABLES_BINARY value "foo"'),
        (("explain",), 255, "explain needs --destination"),
        (("explain", "--destination", "10.1.1.1", "--source", "::1"), 255, "are of two families"),
        (("explain", "--destination", "x"), 255, "'x' is no IP address"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    pod: Namespace, flags: tuple[str, ...], code: int, words: str
) -> None:
    before = state(pod)
    done = tool(pod, *flags)
    assert done.code == code, done
    assert words in done.errors
    assert len(done.errors.splitlines()) == 1
    assert state(pod) == before


def test_words_that_are_no_action_are_ignored_as_istio_does(pod: Namespace) -> None:
    assert "changes made" in succeeded(pod, *INJECTED, "whatever", "plan")
    assert "ISTIO_OUTPUT" in state(pod)


def test_explain_tells_by_what_is_there_and_by_what_is_planned(pod: Namespace) -> None:
    question = ("explain", "--destination", "192.0.2.1", "--uid", "1000", "--port", "443")
    assert "It goes where it was sent: no rule brings it to Envoy." in succeeded(pod, *question)
    planned = json.loads(succeeded(pod, *question, *INJECTED, "--planned", "--json"))
    assert (planned["lands"], planned["port"], planned["reachesEnvoy"]) == ("outbound", 15001, True)
    for more in ((), ("--native-nftables",)):
        succeeded(pod, *INJECTED, *more)
        answer = json.loads(succeeded(pod, *question, *INJECTED, *more, "--json"))
        assert answer["decided"] == planned["decided"]
        arriving = ("explain", "--interface", "eth0", "--source", THERE, "--destination", HERE, "--port", "8080")
        text = succeeded(pod, *arriving, *INJECTED, *more)
        assert "It reaches Envoy as inbound, at port 15006." in text
    other = tool(pod, *question, "--native-nftables", "-b", "80")
    assert other.code == 1 and "give the flags they were made with, or --planned" in other.errors


def test_the_command_has_a_name_of_its_own() -> None:
    script = Path(sys.executable).parent / "istio-iptables"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.startswith("Usage: pilot-agent istio-iptables [OPTIONS] [plan|status|explain]")


def test_every_recording_can_be_asked_for_on_the_command_line() -> None:
    """That its flags are known, with their letters; what they mean is tested elsewhere."""
    from pilot_agent.commands.line import find, read

    for case in recordings():
        assert not read(find("istio-iptables"), case.args).unknown, case.name
