"""The client of istiod's CA, against one that speaks its protocol over TLS and has a switch for every fault."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilot_agent.errors import IdentityError
from pilot_agent.identity import ca as ca_module
from pilot_agent.identity import channel as channel_module
from pilot_agent.identity.account import Account
from pilot_agent.identity.ca import ATTEMPTS, IstiodCa
from pilot_agent.identity.channel import LARGEST_FILE, read_file, system_bundle
from pilot_agent.identity.keys import KeySpec, make_request
from pilot_agent.identity.options import ISTIOD_NAME, CaOptions, Files
from pilot_agent.identity.tokens import Tokens, token_file
from pilot_agent.values import HostPort
from tests.support.authority import Authority
from tests.support.clocks import ManualClock
from tests.support.eventually_async import eventually_async
from tests.support.fake_istiod import CsrRequest, FakeIstiod
from tests.support.ports import free_port
from tests.support.recorded_log import RecordedLog

SPIFFE_ID = "spiffe://cluster.local/ns/foo/sa/bar"
VM = "spiffe://cluster.local/ns/vm/sa/vm"
REQUEST = make_request(KeySpec("ECDSA"), SPIFFE_ID)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca_module, "FIRST_PAUSE_S", 0.001)


class Stand:
    """A CA and its client; `options` counts from the next attempt on."""

    def __init__(self, directory: Path, *, is_plaintext: bool = False) -> None:
        self.directory = directory
        self.istiod = FakeIstiod(directory, is_plaintext=is_plaintext)
        self.token = directory / "token"
        self.token.write_text("the-token-of-this-test\n")
        self.log, self.account, self.clock = RecordedLog(), Account(), ManualClock()
        self.clock.now = time.time()
        self.troubles: list[str] = []
        self.on_trouble: Callable[[], object] = lambda: None
        self.options = CaOptions(
            address=HostPort.parse(self.istiod.address),
            is_plaintext=is_plaintext,
            server_name=ISTIOD_NAME,
            root=None if is_plaintext else self.istiod.root_file,
            client=None,
            cluster_id="Kubernetes",
            cert_signer="",
            headers=(),
        )

    def _trouble(self, problem: str) -> None:
        self.troubles.append(problem)
        self.on_trouble()

    def set(self, **options: object) -> None:
        self.options = self.options._replace(**options)  # type: ignore[arg-type]

    def client(self, attempt_s: float = 20.0) -> IstiodCa:
        tokens = Tokens(lambda: token_file(self.token), self.log.scope, self.clock)
        arguments = (tokens, self.account, self.log.scope, self.clock, self._trouble, attempt_s)
        return IstiodCa(lambda: self.options, *arguments)

    def sign(self, ttl_s: int = 3600, attempt_s: float = 20.0) -> list[str]:
        async def main() -> list[str]:
            return list(await self.client(attempt_s).sign(REQUEST.csr, ttl_s))

        return asyncio.run(main())

    def error(self, attempt_s: float = 20.0) -> IdentityError:
        with pytest.raises(IdentityError) as caught:
            self.sign(attempt_s=attempt_s)
        text = str(caught.value)
        assert len(text.splitlines()) == 1
        assert "the-token" not in text + str(self.log.lines) + str(self.troubles)
        return caught.value

    @property
    def last(self) -> CsrRequest:
        return self.istiod.requests[-1]

    def provision(self, lifetime_s: float = 3600.0) -> Files:
        self.istiod.provision(self.directory / "prov", VM, lifetime_s)
        files = Files.of_directory(self.directory / "prov")
        self.set(client=files)
        return files


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Stand]:
    """The CA does not listen yet."""
    stand = Stand(tmp_path)
    yield stand
    stand.istiod.stop()


@pytest.fixture
def stand(idle: Stand) -> Stand:
    idle.istiod.start()
    return idle


@pytest.fixture
def plaintext(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path, is_plaintext=True)
    stand.istiod.start()
    yield stand
    stand.istiod.stop()


# What is asked, and what comes


def test_the_answer_is_the_leaf_and_the_root(stand: Stand) -> None:
    assert stand.sign() == [stand.istiod.issued[0], stand.istiod.root_pem]
    assert (stand.account.csr_requests, stand.account.csr_failures, stand.account.csr_retries) == (1, 0, 0)
    assert (stand.troubles, stand.log.lines) == ([], [])


def test_the_request_holds_what_istiod_reads(stand: Stand) -> None:
    stand.set(cluster_id="c1", cert_signer="clusterissuers.x/y", headers=(("x_ca", "a=b"), ("x-other", "")))
    stand.sign(86400)
    assert (stand.last.csr, stand.last.validity_s) == (REQUEST.csr.decode(), 86400)
    assert stand.last.cert_signer == "clusterissuers.x/y"
    headers = {
        name: value for name, value in stand.last.metadata.items() if name not in ("authorization", "user-agent")
    }
    assert headers == {"clusterid": "c1", "x_ca": "a=b", "x-other": ""}
    assert (stand.last.token, stand.last.peer_identity) == ("the-token-of-this-test", "")


def test_empty_names_are_sent_as_istios_agent_sends_them(stand: Stand) -> None:
    stand.set(cluster_id="")
    stand.sign()
    assert stand.last.metadata["clusterid"] == ""
    assert stand.last.cert_signer == ""


def test_the_token_is_read_for_each_call(stand: Stand) -> None:
    stand.sign()
    stand.token.write_text("the-token-that-came-later")
    stand.sign()
    assert [each.token for each in stand.istiod.requests] == ["the-token-of-this-test", "the-token-that-came-later"]


def test_and_for_each_attempt(stand: Stand) -> None:
    stand.istiod.fault, stand.istiod.fault_count = "unavailable", 1
    stand.on_trouble = lambda: stand.token.write_text("the-token-that-came-later")
    stand.sign()
    assert [each.token for each in stand.istiod.requests] == ["the-token-of-this-test", "the-token-that-came-later"]


def test_without_a_token_there_is_no_header_and_a_warning(stand: Stand) -> None:
    stand.token.unlink()
    stand.sign()
    assert "authorization" not in stand.last.metadata
    assert stand.log.lines == [
        f"warn the token {stand.token} can't be read: No such file or directory; the CA may refuse us"
    ]


def test_a_required_token_that_is_missing_ends_the_call_before_it_is_made(stand: Stand) -> None:
    def read() -> str:
        raise IdentityError("token", "no token from Google")

    async def main() -> None:
        tokens = Tokens(read, stand.log.scope, stand.clock, is_required=True)
        client = IstiodCa(lambda: stand.options, tokens, stand.account, stand.log.scope, stand.clock)
        with pytest.raises(IdentityError, match="no token from Google"):
            await client.sign(REQUEST.csr, 60)

    asyncio.run(main())
    assert stand.istiod.requests == []
    assert (stand.account.csr_failures, stand.account.csr_retries) == (1, 0)


def test_plaintext_needs_no_root_and_sends_the_token_all_the_same(plaintext: Stand) -> None:
    assert len(plaintext.sign()) == 2
    assert plaintext.last.token == "the-token-of-this-test"


def test_a_proxy_of_the_environment_is_none_of_ours(stand: Stand) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        os.environ[name] = f"http://127.0.0.1:{free_port()}"
    assert len(stand.sign()) == 2


# Attempts


RETRIED = {"unavailable": "ca_unavailable", "internal": "ca_error"}
FINAL = {
    "unauthenticated": "ca_denied",
    "permission_denied": "ca_denied",
    "unknown": "ca_error",
    "invalid_argument": "ca_error",
}


@pytest.mark.parametrize("fault", RETRIED)
def test_what_may_pass_is_tried_five_times(stand: Stand, fault: str) -> None:
    stand.istiod.fault = fault
    error = stand.error()
    assert error.kind == RETRIED[fault]
    assert str(error) == f"CA {stand.istiod.address}: {fault.upper()}: fake istiod: {fault}"
    assert len(stand.istiod.requests) == ATTEMPTS
    assert stand.troubles == [str(error)] * (ATTEMPTS - 1)
    assert (stand.account.csr_requests, stand.account.csr_failures, stand.account.csr_retries) == (1, 1, 4)


@pytest.mark.parametrize("fault", FINAL)
def test_what_will_not_pass_is_tried_once(stand: Stand, fault: str) -> None:
    stand.istiod.fault = fault
    error = stand.error()
    assert (error.kind, len(stand.istiod.requests), stand.troubles) == (FINAL[fault], 1, [])
    assert str(error) == f"CA {stand.istiod.address}: {fault.upper()}: fake istiod: {fault}"
    assert (stand.account.csr_requests, stand.account.csr_failures, stand.account.csr_retries) == (1, 1, 0)


def test_the_token_istiod_refuses_is_told_as_that(stand: Stand) -> None:
    stand.istiod.requires_token = "another-token-than-ours"
    assert stand.error().kind == "ca_denied"
    stand.token.write_text("another-token-than-ours")
    assert len(stand.sign()) == 2


def test_the_last_attempt_may_be_the_one_that_helps(stand: Stand) -> None:
    stand.istiod.fault, stand.istiod.fault_count = "unavailable", ATTEMPTS - 1
    assert len(stand.sign()) == 2
    assert (stand.account.csr_requests, stand.account.csr_failures, stand.account.csr_retries) == (1, 0, 4)


def test_pauses_double_with_a_little_jitter(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.undo()  # the real first pause
    monkeypatch.setattr(asyncio, "sleep", note)
    stand.istiod.fault = "unavailable"
    stand.error()
    assert len(pauses) == ATTEMPTS - 1
    for pause, base in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert base * 0.9 <= pause <= base * 1.1


def test_a_ca_that_says_nothing_ends_each_attempt_by_its_deadline(stand: Stand) -> None:
    stand.istiod.fault = "hang"
    error = stand.error(attempt_s=0.1)
    assert error.kind == "ca_timeout"
    assert "DEADLINE_EXCEEDED" in str(error)
    assert stand.account.csr_retries == ATTEMPTS - 1


def test_one_silence_costs_one_attempt(stand: Stand) -> None:
    stand.istiod.fault, stand.istiod.fault_count = "hang", 1
    assert len(stand.sign(attempt_s=1.0)) == 2
    assert stand.account.csr_retries == 1


def test_a_call_that_is_cancelled_ends_at_once(stand: Stand) -> None:
    async def main() -> None:
        task = asyncio.create_task(stand.client().sign(REQUEST.csr, 60))
        await eventually_async(lambda: stand.istiod.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    stand.istiod.fault = "hang"
    asyncio.run(main())
    assert stand.account.csr_failures == 0, "nobody failed"


def test_the_time_of_a_call_is_counted_with_its_failures(stand: Stand) -> None:
    stand.istiod.fault, stand.istiod.fault_count = "unavailable", 2
    stand.on_trouble = lambda: stand.clock.advance(0.25)
    stand.sign()
    assert stand.account.csr_ms == 500.0


@pytest.mark.parametrize("fault", ["garbage", "empty", "garbage_pem", "chain_of_one"])
def test_an_answer_is_handed_on_as_it_is_once_it_is_a_message(stand: Stand, fault: str) -> None:
    stand.istiod.fault = fault
    if fault == "garbage":
        error = stand.error()
        assert (error.kind, len(stand.istiod.requests)) == ("ca_answer", 1)
        assert stand.istiod.address in str(error)
    else:
        assert len(stand.sign()) == {"empty": 0, "garbage_pem": 2, "chain_of_one": 1}[fault]


def test_a_ca_that_is_not_there_yet_is_reached_by_a_later_attempt(idle: Stand) -> None:
    idle.on_trouble = lambda: idle.istiod.start() if len(idle.troubles) == 3 else None
    assert len(idle.sign()) == 2
    assert len(idle.istiod.requests) == 1
    assert idle.account.csr_retries == 3


def test_a_ca_that_is_not_there_at_all(idle: Stand) -> None:
    error = idle.error()
    assert error.kind == "ca_unavailable"
    assert idle.istiod.address in str(error) and "UNAVAILABLE" in str(error)


def test_a_new_address_counts_from_the_next_attempt_on(stand: Stand) -> None:
    right = stand.options.address
    stand.set(address=HostPort("localhost", free_port()))
    stand.on_trouble = lambda: stand.set(address=right)
    assert len(stand.sign()) == 2
    assert stand.account.csr_retries == 1


# Whom we trust


def test_the_wrong_root_is_refused_and_a_replaced_one_counts_for_the_next_attempt(stand: Stand) -> None:
    root = stand.directory / "root.pem"
    root.write_text(Authority("somebody else").pem)
    stand.set(root=root)
    assert stand.error().kind == "ca_unavailable"
    assert stand.istiod.requests == [], "the token was shown to nobody"
    stand.on_trouble = lambda: root.write_text(stand.istiod.root_pem)
    assert len(stand.sign()) == 2
    assert len(stand.istiod.requests) == 1


def test_a_new_root_of_the_ca_is_read_with_its_file(stand: Stand) -> None:
    stand.sign()
    stand.istiod.rotate_root()
    assert stand.sign()[1] == stand.istiod.root_pem, "the certificates come from the new one already"
    stand.istiod.stop()
    stand.istiod.start()
    assert stand.sign()[1] == stand.istiod.root_pem


def test_one_unusable_block_does_not_spoil_the_roots(stand: Stand) -> None:
    root = stand.directory / "root.pem"
    bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    root.write_text(f"{bad}{Authority('another').pem}{stand.istiod.root_pem}{bad}")
    stand.set(root=root)
    assert len(stand.sign()) == 2


def test_another_servers_name_is_refused(stand: Stand) -> None:
    stand.set(server_name="istiod.elsewhere.svc")
    assert stand.error().kind == "ca_unavailable"
    assert stand.istiod.requests == []


@pytest.mark.parametrize("name", [ISTIOD_NAME, "localhost"])
def test_every_name_of_the_certificate_will_do(stand: Stand, name: str) -> None:
    stand.set(server_name=name)
    assert len(stand.sign()) == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "no usable certificate in it (0 bytes)"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "no usable certificate"),
        (b"x" * (LARGEST_FILE + 1), f"larger than {LARGEST_FILE} bytes"),
    ],
    ids=["missing", "empty", "garbage", "too large"],
)
def test_without_a_root_nothing_is_asked(stand: Stand, content: bytes | None, why: str) -> None:
    root = stand.directory / "root.pem"
    if content is not None:
        root.write_bytes(content)
    stand.set(root=root)
    error = stand.error()
    assert error.kind == "ca_root"
    assert str(root) in str(error) and why in str(error)
    assert stand.istiod.requests == []
    assert stand.account.csr_failures == 1


def test_the_systems_roots_on_request(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "SYSTEM_BUNDLES", ("/nonexistent/bundle", str(stand.istiod.root_file)))
    stand.set(root=None)
    assert system_bundle() == stand.istiod.root_file
    assert len(stand.sign()) == 2
    monkeypatch.setattr(channel_module, "SYSTEM_BUNDLES", ("/nonexistent/bundle",))
    error = stand.error()
    assert (error.kind, "name a file instead of SYSTEM" in str(error)) == ("ca_root", True)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * LARGEST_FILE)
    assert len(read_file(path)) == LARGEST_FILE
    path.write_bytes(b"x" * (LARGEST_FILE + 1))
    with pytest.raises(OSError, match="larger than"):
        read_file(path)


# Who we are: a virtual machine's provisioned certificate


def test_the_provisioned_certificate_is_shown_beside_the_token(stand: Stand) -> None:
    stand.provision()
    stand.sign()
    assert (stand.last.peer_identity, stand.last.token) == (VM, "the-token-of-this-test")
    assert stand.log.lines == []


def test_a_renewed_one_is_used_by_the_next_attempt(stand: Stand) -> None:
    stand.provision(lifetime_s=-1)
    stand.istiod.fault, stand.istiod.fault_count = "unavailable", 1
    stand.on_trouble = stand.provision
    stand.sign()
    assert [each.peer_identity for each in stand.istiod.requests] == ["", VM]


def test_an_expired_one_is_warned_of_and_left_out(stand: Stand) -> None:
    files = stand.provision(lifetime_s=-1)
    stand.sign()
    assert (stand.last.peer_identity, stand.last.token) == ("", "the-token-of-this-test")
    (line,) = stand.log.lines
    assert line.startswith(f"warn the provisioned certificate {files.chain} expired at ")
    assert line.endswith("; the CA is asked with the token only")


@pytest.mark.parametrize(
    "content", [None, "", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_a_chain_that_can_not_be_read_is_warned_of_and_left_out(stand: Stand, content: str | None) -> None:
    files = stand.provision()
    assert files.chain is not None
    files.chain.unlink()
    if content is not None:
        files.chain.write_text(content)
    stand.sign()
    assert stand.last.peer_identity == ""
    (line,) = stand.log.lines
    assert line.startswith(f"warn the provisioned certificate {files.chain}")


@pytest.mark.parametrize("key", [None, "no key", "another"])
def test_a_key_that_does_not_fit_ends_the_attempt(stand: Stand, key: str | None) -> None:
    files = stand.provision()
    assert files.key is not None
    if key is None:
        files.key.unlink()
    else:
        files.key.write_text(Authority().pair(VM).key if key == "another" else key)
    error = stand.error()
    assert error.kind == "client_certificate"
    assert str(files.key if key is None else files.chain) in str(error)
    assert stand.istiod.requests == []


def test_no_certificate_is_shown_in_plaintext(plaintext: Stand) -> None:
    plaintext.provision()
    plaintext.sign()
    assert plaintext.last.peer_identity == ""
