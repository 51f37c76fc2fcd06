"""What nft is told, and not told, by what it lists; and its errors."""

import pytest

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.build import build
from pilot_agent.interception.execute import Outcome
from pilot_agent.interception.nft import ON_THE_HOST, Nft, dry_run
from pilot_agent.interception.nft_listing import Table, Tables, foretold
from tests.unit.interception.listings import FakeNft, listing, no_nft
from tests.unit.interception.recordings import recording

CASE = recording("default-v4")
RULES = build(CASE.options(native_nftables=True).capture)
WANTED = foretold(RULES)
RAW = {"raw": Table({})}
REMOVES_RAW = ["add table inet istio-proxy-raw", "delete table inet istio-proxy-raw"]


def told(there: Tables, *, is_forced: bool = False) -> list[str]:
    fake = FakeNft(listing(there))
    change = Nft(fake).apply(RULES, is_forced=is_forced)
    assert [*change.script] == "".join(fake.told).splitlines()
    assert change.is_made is bool(fake.told)
    return [*change.script]


def test_an_empty_namespace_gets_istios_script() -> None:
    assert told({}) == CASE.nft


def test_where_nothing_differs_nothing_is_run() -> None:
    fake = FakeNft(listing(WANTED))
    change = Nft(fake).apply(RULES)
    assert (change.differences, change.script, change.is_made) == ((), (), False)
    assert [argv[-1] for argv in fake.argvs] == ["--version", "inet"]


def test_unless_it_is_forced() -> None:
    assert told(WANTED, is_forced=True) == CASE.nft


def test_rules_that_differ_are_flushed_by_istios_script() -> None:
    nat = WANTED["nat"]
    chains = nat.chains | {"istio-output": nat.chains["istio-output"]._replace(rules=())}
    assert told({"nat": nat._replace(chains=chains)}) == CASE.nft


def test_a_table_without_use_goes_in_the_same_transaction() -> None:
    assert told(WANTED | RAW) == [*REMOVES_RAW, *CASE.nft]


def test_what_a_flush_would_leave_goes_with_its_table() -> None:
    nat = WANTED["nat"]
    chains = nat.chains | {"istio-output-dns": nat.chains["istio-output"]}
    goes = ["add table inet istio-proxy-nat", "delete table inet istio-proxy-nat"]
    assert told({"nat": nat._replace(chains=chains)}) == [*goes, *CASE.nft]
    assert told({"nat": nat._replace(others=("flags dormant",))}) == [*goes, *CASE.nft]


def test_cleanup_takes_what_is_there() -> None:
    fake = FakeNft(listing(RAW))
    assert [*Nft(fake).cleanup().script] == REMOVES_RAW
    assert not Nft(FakeNft()).cleanup().is_made


def test_a_plan_changes_nothing_and_says_what_differs() -> None:
    fake = FakeNft(listing(RAW))
    change = Nft(fake).plan(RULES)
    assert change.lines == [
        "table inet istio-proxy-nat is missing",
        "table inet istio-proxy-raw should not be there",
    ]
    assert change.data["changed"] is False
    assert [each["kind"] for each in change.data["differences"]] == ["missing", "extra"]
    assert not fake.told


def test_a_dry_run_needs_no_nft_and_knows_nothing_of_what_is_there() -> None:
    unused = [f"{verb} table inet istio-proxy-{name}" for name in ("mangle", "raw") for verb in ("add", "delete")]
    assert dry_run(RULES) == [*unused, *CASE.nft]


@pytest.mark.parametrize("version", ["1.0.1", "1.1.3", "2"])
def test_versions_that_will_do(version: str) -> None:
    Nft(FakeNft(version=version)).tables()


@pytest.mark.parametrize("version", ["1.0.0", "0.9.8", "1"])
def test_versions_that_are_too_old(version: str) -> None:
    expected = f"nft {version} in the sidecar container image is too old: native nftables need 1.0.1 or later"
    with pytest.raises(InterceptionError) as caught:
        Nft(FakeNft(version=version)).apply(RULES)
    assert str(caught.value) == expected


def test_without_nft() -> None:
    for made, place in ((Nft(no_nft), "in the sidecar container image"), (Nft(no_nft, ON_THE_HOST), ON_THE_HOST)):
        with pytest.raises(InterceptionError) as caught:
            made.apply(RULES)
        assert str(caught.value) == (
            f"nativeNftables is enabled, but the nft binary is missing {place}: nft was not found: it is not "
            "installed, or not in /bin"
        )


READING = [
    (
        "Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed: Operation not ...",
        "Operation not permitted (you must be root): this takes root and the capability NET_ADMIN",
    ),
    (
        "nft: mnl.c:60: Unable to initialize Netlink socket: Protocol not supported",
        "nft: mnl.c:60: Unable to initialize Netlink socket: Protocol not supported: this kernel has no nf_tables",
    ),
    ("", "exit status 1"),
]


@pytest.mark.parametrize(("said", "message"), READING)
def test_a_listing_that_fails(said: str, message: str) -> None:
    fake = FakeNft()
    fake.answers["inet"] = Outcome(1, "", said)
    with pytest.raises(InterceptionError) as caught:
        Nft(fake).apply(RULES)
    assert str(caught.value) == f"nftables run failed: {message}"
    assert not fake.told


WRITING = [
    (
        "/dev/stdin:3:1-17: Error: Could not process rule: Operation not permitted\nadd chain\n^^^^\n",
        "Could not process rule: Operation not permitted (line 3: add chain inet istio-proxy-nat prerouting "
        "{ type nat hook prerouting priority -100 ; }): this takes root and the capability NET_ADMIN",
    ),
    ("/dev/stdin:99:1-2: Error: syntax error\n", "syntax error"),
    ("Segmentation fault\n", "Segmentation fault"),
]


@pytest.mark.parametrize(("said", "message"), WRITING)
def test_a_transaction_that_fails(said: str, message: str) -> None:
    with pytest.raises(InterceptionError) as caught:
        Nft(FakeNft(write=Outcome(1, "", said))).apply(RULES)
    assert str(caught.value) == f"nftables run failed: {message}"
