"""The secret manager: every name, its files, its watches, OUTPUT_CERTS, and what is told of them."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilot_agent.errors import IdentityError
from pilot_agent.files.publish import publish_all
from pilot_agent.identity import channel as channel_module
from pilot_agent.identity import keeper as keeper_module
from pilot_agent.identity import secrets as secrets_module
from pilot_agent.identity.account import Account
from pilot_agent.identity.certificate import stamp
from pilot_agent.identity.options import Files, IdentityOptions
from pilot_agent.identity.output import Output
from pilot_agent.identity.secrets import MOST_FILE_NAMES, Seams, Secrets, files_named
from pilot_agent.identity.slots import Secret, Slot
from pilot_agent.identity.tokens import Tokens
from pilot_agent.identity.trust import merged_roots
from tests.support.authority import Authority, Pair
from tests.support.clocks import ManualClock
from tests.support.confidential import confide, found_in
from tests.support.eventually_async import eventually_async
from tests.support.mounts import Mount
from tests.support.recorded_log import RecordedLog
from tests.unit.identity.signers import DAY, HOUR, SPIFFE_ID, FakeSigner, identity_options

ROOT = Authority("root 1")
GARBAGE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


class Stand:
    """A secret manager over real files, a clock that stands still, and `signer` as its CA."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.options: IdentityOptions = identity_options(directory)
        self.clock, self.log, self.account = ManualClock(), RecordedLog(), Account()
        self.clock.now = float(int(time.time()))
        self.signer: FakeSigner | None = FakeSigner(self.clock, ROOT)
        self.tokens: Tokens | None = None
        self.watches: list[list[Path]] = []
        self.output: Output | None = None
        self.secrets: Secrets
        (directory / "certs").mkdir()

    @property
    def ca(self) -> FakeSigner:
        assert self.signer is not None
        return self.signer

    def output_to(self, directory: Path) -> None:
        self.options = self.options._replace(output=directory)
        self.output = Output(directory, 0o600, publish_all)

    def write(self, pair: Pair | None = None, root: str | None = None) -> Pair:
        """Into the directory of the workload's certificates."""
        pair = pair or ROOT.pair(SPIFFE_ID)
        (self.directory / "certs/key.pem").write_text(pair.key)
        (self.directory / "certs/cert-chain.pem").write_text(pair.chain)
        if root is not None:
            (self.directory / "certs/root-cert.pem").write_text(root)
        return pair

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            with ThreadPoolExecutor(2) as executor:
                note = lambda: self.watches.append(self.secrets.paths())  # noqa: E731
                seams = Seams(executor, self.log.scope, self.clock, self.tokens, self.output, note)
                self.secrets = Secrets(self.options, self.signer, self.account, seams)
                task = asyncio.create_task(self.secrets.run())
                try:
                    await scenario()
                    told = json.dumps([self.secrets.described(), self.secrets.notes(), self.secrets.reason()])
                finally:
                    is_over = task.done()
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                assert not is_over, "it never ends by itself"
                secret = self.secrets.workload.default.secret
                confide(secret.key if secret is not None else b"")
                assert found_in(told + "\n".join(self.log.lines)) == []

        asyncio.run(main())

    def slot(self, name: str) -> Slot:
        return self.secrets.slot(name)

    def served(self, name: str = "default") -> Secret:
        secret = self.slot(name).secret
        assert secret is not None
        return secret

    async def has(self, name: str, is_so: Callable[[Secret], bool] = lambda _: True) -> None:
        def is_there() -> bool:
            secret = self.slot(name).secret
            return secret is not None and is_so(secret)

        await eventually_async(is_there)

    async def issued(self, times: int = 1) -> None:
        await eventually_async(lambda: self.account.renewals >= times)
        assert self.account.renewals == times


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def is_chain(chain: str) -> Callable[[Secret], bool]:
    return lambda secret: secret.chain == chain.encode()


# Names


def test_the_workloads_names(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.issued()
        assert stand.served("default").is_key_pair
        assert stand.served("ROOTCA").roots == ROOT.pem.strip().encode()
        assert stand.slot("default") is stand.slot("default")

    stand.run(scenario)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Default",
        "rootca",
        "default ",
        "kubernetes://x",
        "file-cert:",
        "file-cert:/a",
        "file-cert:/a~",
        "file-cert:~/b",
        "file-cert:/a~/b~/c",
        "file-root:",
        "file-root:/a~/b",
        "file-root:~",
        "file-key:/a",
        "file:/a",
        "file-root:/a\0b",
        "file-cert:/a~/b\0",
        "x" * 100_000,
    ],
)
def test_an_unknown_name_is_no_reason_to_hand_out_a_key(stand: Stand, name: str) -> None:
    async def scenario() -> None:
        with pytest.raises(IdentityError) as caught:
            stand.slot(name)
        assert caught.value.kind == "unknown_name"
        assert len(str(caught.value)) < 300 and len(str(caught.value).splitlines()) == 1

    stand.run(scenario)
    assert stand.watches == []


def test_names_of_files_say_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files_named("file-cert:/a/chain.pem~/b/key.pem") == Files(Path("/a/chain.pem"), Path("/b/key.pem"))
    assert files_named("file-root:/a/root.pem") == Files(root=Path("/a/root.pem"))
    monkeypatch.chdir(tmp_path)
    assert files_named("file-root:./a") == Files(root=tmp_path / "a")
    assert files_named("file-root:systemd") == Files(root=tmp_path / "systemd")


def test_a_pair_of_files(stand: Stand) -> None:
    chain, key = stand.directory / "c.pem", stand.directory / "k.pem"
    name = f"file-cert:{chain}~{key}"

    async def scenario() -> None:
        pair = ROOT.pair("spiffe://td/files")
        chain.write_text(pair.chain)
        key.write_text(pair.key)
        stand.slot(name)
        await stand.has(name)
        secret = stand.served(name)
        assert (secret.chain, secret.key) == (pair.chain.encode(), pair.key.encode())
        assert stand.watches == [[*stand.options.certs.all, stand.options.crl, chain, key]]
        (described,) = [each for each in stand.secrets.described() if each["name"] == name]
        assert described["spiffe_id"] == "spiffe://td/files"
        assert (described["source"], described["next_renewal"], described["last_error"]) == ("files", None, None)

    stand.run(scenario)


def test_roots_of_a_file_are_sorted_and_never_merged_with_the_bundle(stand: Stand) -> None:
    file = stand.directory / "r.pem"
    one, two = Authority("one").pem, Authority("two").pem

    async def scenario() -> None:
        await stand.issued()
        stand.secrets.workload.set_trust_bundle([Authority("bundle").pem])
        file.write_text(one + GARBAGE + two)
        name = f"file-root:{file}"
        stand.slot(name)
        await stand.has(name)
        assert stand.served(name).roots == merged_roots([one, two])
        assert stand.served(name).crl == b""

    stand.run(scenario)


def test_the_systems_roots(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = stand.directory / "bundle.crt"
    bundle.write_text(ROOT.pem)
    monkeypatch.setattr(channel_module, "SYSTEM_BUNDLES", ("/nonexistent/bundle", str(bundle)))

    async def scenario() -> None:
        stand.slot("file-root:system")
        await stand.has("file-root:system")
        assert stand.served("file-root:system").roots == ROOT.pem.strip().encode()

    stand.run(scenario)


def test_a_system_without_roots_is_an_error_and_no_key_pair(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "SYSTEM_BUNDLES", ())

    async def scenario() -> None:
        with pytest.raises(IdentityError, match="no bundle of root certificates"):
            stand.slot("file-root:system")

    stand.run(scenario)


def test_files_that_are_not_there_come_later(stand: Stand) -> None:
    file = stand.directory / "r.pem"
    name = f"file-root:{file}"

    async def scenario() -> None:
        slot = stand.slot(name)
        await eventually_async(lambda: slot.problem)
        assert (slot.problem, slot.failures) == (f"{file} is missing or empty", 0)
        stand.clock.advance(10)
        await eventually_async(lambda: slot.failures)
        assert f"certificates: {name}: {file} is missing or empty" in stand.secrets.notes()
        file.write_text(ROOT.pem)
        await stand.has(name)
        assert slot.problem is None

    stand.run(scenario)


def test_a_changed_file_is_served_and_a_broken_one_is_not(stand: Stand) -> None:
    mount = Mount(stand.directory / "mount")
    name = f"file-cert:{mount.directory / 'chain'}~{mount.directory / 'key'}"
    one, two = ROOT.pair("spiffe://td/1"), ROOT.pair("spiffe://td/2")

    async def scenario() -> None:
        mount.publish(chain=one.chain, key=one.key)
        slot = stand.slot(name)
        await stand.has(name)
        mount.publish(chain=two.chain, key=one.key)
        stand.secrets.files_changed()
        await eventually_async(lambda: slot.problem)
        assert "does not belong" in (slot.problem or "")
        assert stand.served(name).chain == one.chain.encode()
        stand.clock.advance(11)
        stand.secrets.files_changed()
        assert slot.failures == 0, "what is served stays, and nobody waits"
        mount.publish(chain=two.chain, key=two.key)
        stand.secrets.files_changed()
        await stand.has(name, is_chain(two.chain))
        assert slot.problem is None

    stand.run(scenario)


def test_an_expired_pair_of_files_is_told(stand: Stand) -> None:
    chain, key = stand.directory / "c.pem", stand.directory / "k.pem"
    name = f"file-cert:{chain}~{key}"

    async def scenario() -> None:
        pair = ROOT.pair("spiffe://td/files", lifetime_s=60)
        chain.write_text(pair.chain)
        key.write_text(pair.key)
        slot = stand.slot(name)
        await stand.has(name)
        stand.clock.advance(70)
        stand.secrets.files_changed()
        await eventually_async(lambda: slot.problem)
        assert "expired at" in (slot.problem or "")

    stand.run(scenario)


# Limits and watches


def test_names_that_nobody_serves_are_watched_no_longer(stand: Stand) -> None:
    file = stand.directory / "r.pem"
    file.write_text(ROOT.pem)
    name = f"file-root:{file}"

    async def scenario() -> None:
        slot = stand.slot(name)

        def listener() -> None: ...

        slot.listen(listener)
        await stand.has(name)
        stand.secrets.take_back(name)
        assert file in stand.secrets.paths(), "somebody listens"
        slot.forget(listener)
        stand.secrets.take_back(name)
        stand.secrets.take_back(name)
        assert file not in stand.secrets.paths()
        assert [file in paths for paths in stand.watches] == [True, False]
        assert stand.slot(name) is not slot, "made anew for the next one"
        await stand.has(name)
        stand.secrets.take_back("default")
        stand.secrets.take_back("never heard of")
        assert stand.slot("default") is stand.secrets.workload.default

    stand.run(scenario)


def test_there_is_a_limit_to_names(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_FILE_NAMES == 512
    monkeypatch.setattr(secrets_module, "MOST_FILE_NAMES", 3)

    async def scenario() -> None:
        await stand.issued()
        for number in range(3):
            stand.slot(f"file-root:/nonexistent/{number}")
        with pytest.raises(IdentityError, match="more than 3 file names") as caught:
            stand.slot("file-root:/nonexistent/3")
        assert caught.value.kind == "unknown_name"
        stand.slot("file-root:/nonexistent/2")
        stand.slot("default")
        stand.secrets.take_back("file-root:/nonexistent/0")
        stand.slot("file-root:/nonexistent/3")

    stand.run(scenario)


def test_every_task_of_a_name_ends_with_the_manager(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.issued()
        for number in range(20):
            stand.slot(f"file-root:{stand.directory}/{number}")

    stand.run(scenario)
    assert stand.secrets.paths() == [*stand.options.certs.all, stand.options.crl]


# The workload's files


def test_files_that_appear_take_over_and_those_that_go_leave_it_to_the_ca(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.issued()
        pair = stand.write(root=ROOT.pem)
        stand.secrets.files_changed()
        await stand.has("default", is_chain(pair.chain))
        assert stand.secrets.described()[0]["source"] == "files"
        for path in stand.options.certs.all:
            path.unlink()
        stand.secrets.files_changed()
        await stand.issued(2)
        assert stand.served().chain != pair.chain.encode()
        assert stand.secrets.described()[0]["source"] == "ca"

    stand.run(scenario)


def test_a_key_that_changes_alone_is_seen(stand: Stand) -> None:
    stand.signer = None

    async def scenario() -> None:
        pair = stand.write(root=ROOT.pem)
        await stand.has("default")
        first = stand.served().version
        (stand.directory / "certs/key.pem").write_text(f"# the same key\n{pair.key}")
        stand.secrets.files_changed()
        await stand.has("default", lambda secret: secret.version != first)
        (stand.directory / "certs/key.pem").write_text(ROOT.pair(SPIFFE_ID).key)
        second = stand.served().version
        stand.secrets.files_changed()
        await eventually_async(lambda: stand.slot("default").problem)
        assert stand.served().version == second, "a mismatch keeps what there was"

    stand.run(scenario)


def test_changes_are_seen_without_being_told_too(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "POLL_S", 0.02)
    stand.signer = None

    async def scenario() -> None:
        stand.write(root=ROOT.pem)
        await stand.has("default")
        other = stand.write()
        await stand.has("default", is_chain(other.chain))

    stand.run(scenario)


def test_the_revocation_list_belongs_to_the_workloads_roots(stand: Stand) -> None:
    assert stand.options.crl is not None
    crl = stand.options.crl

    async def scenario() -> None:
        await stand.issued()
        first = stand.served("ROOTCA").version
        crl.write_text(ROOT.crl(1))
        stand.secrets.files_changed()
        await stand.has("ROOTCA", lambda secret: secret.version != first)
        second = stand.served("ROOTCA").version
        crl.write_text(ROOT.crl(1, 2))
        stand.secrets.files_changed()
        await stand.has("ROOTCA", lambda secret: secret.version not in (first, second))
        (described,) = [each for each in stand.secrets.described() if each["name"] == "ROOTCA"]
        assert (described["roots"], described["has_crl"]) == (1, True)
        third = stand.served("ROOTCA").version
        crl.write_text("rubbish")
        stand.secrets.files_changed()
        await eventually_async(lambda: stand.slot("ROOTCA").problem)
        assert stand.served("ROOTCA").version == third
        crl.unlink()
        stand.secrets.files_changed()
        await stand.has("ROOTCA", lambda secret: secret.version == first)

    stand.run(scenario)


def test_renewal_goes_on_beside_its_own_output(stand: Stand) -> None:
    """Read back, it would look like mounted files, and end all renewal."""
    stand.output_to(stand.options.certs.all[0].parent)

    async def scenario() -> None:
        await eventually_async(lambda: stand.output is not None and stand.output.is_complete)
        assert stand.secrets.workload.origin == "ca"
        assert stand.secrets.paths() == [stand.options.crl]
        stand.clock.advance(DAY / 2)
        stand.secrets.files_changed()
        await stand.issued(2)

    stand.run(scenario)


# OUTPUT_CERTS


def test_every_new_secret_is_written(stand: Stand) -> None:
    out = stand.directory / "out"
    stand.output_to(out)

    def has_written() -> bool:
        return (out / "cert-chain.pem").exists() and (out / "cert-chain.pem").read_bytes() == stand.served().chain

    async def scenario() -> None:
        await stand.issued()
        await eventually_async(has_written)
        other = Authority("another mesh").pem
        stand.secrets.workload.set_trust_bundle([other])
        merged = merged_roots([ROOT.pem], [other])
        await eventually_async(lambda: (out / "root-cert.pem").read_bytes() == merged)
        await stand.issued(2)
        await eventually_async(has_written)
        assert (out / "root-cert.pem").read_bytes() == merged, "the merged ones, always"
        assert (out / "key.pem").read_bytes() == stand.served().key
        assert stand.secrets.reason() is None

    stand.run(scenario)
    assert stand.account.outputs >= 2


def test_what_can_not_be_written_is_tried_again_and_told_once(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    out = stand.directory / "out"
    out.write_text("in the way")
    stand.output_to(out)
    tries = 0
    write = Output.write

    def counting(self: Output, pair: Secret | None, roots: Secret | None) -> bool:
        nonlocal tries
        tries += 1
        return write(self, pair, roots)

    monkeypatch.setattr(Output, "write", counting)

    async def scenario() -> None:
        await stand.issued()
        await eventually_async(lambda: tries >= 2)
        problem = f"OUTPUT_CERTS: {out} can't be written: File exists"
        assert stand.secrets.output_problem == problem
        assert stand.secrets.reason() == problem
        assert f"certificates: {problem}" in stand.secrets.notes()
        out.unlink()
        await eventually_async(lambda: stand.secrets.reason() is None and stand.secrets.output_problem is None)

    stand.run(scenario)
    lines = [line for line in stand.log.lines if "OUTPUT_CERTS" in line]
    assert [line.partition(" ")[0] for line in lines] == ["error", "info"]
    assert stand.account.failures["output"] >= 1


# What is told


def test_the_reason_is_why_there_is_nothing_to_serve(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.hold()
        await eventually_async(lambda: stand.ca.calls)
        assert stand.secrets.reason() == "no certificate yet"
        stand.secrets.workload.note_attempt("CA ca.example: UNAVAILABLE: x")
        assert stand.secrets.reason() == "CA ca.example: UNAVAILABLE: x"
        assert stand.secrets.notes() == [
            "certificates: default: CA ca.example: UNAVAILABLE: x",
            "certificates: ROOTCA: CA ca.example: UNAVAILABLE: x",
        ]
        stand.ca.release()
        await stand.issued()
        assert (stand.secrets.reason(), stand.secrets.notes()) == (None, [])

    stand.run(scenario)


def test_a_failed_renewal_is_a_note_and_no_reason(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.issued()
        stand.ca.fail()
        stand.secrets.workload.renew()
        await eventually_async(lambda: stand.account.failures)
        assert stand.secrets.reason() is None
        assert "certificates: default: the CA is down" in stand.secrets.notes()
        assert stand.secrets.described()[0]["last_error"] == "the CA is down"
        stand.clock.advance(DAY)
        stand.secrets.files_changed()
        await eventually_async(stand.secrets.reason)
        assert "expired at" in (stand.secrets.reason() or "") or "the CA is down" in (stand.secrets.reason() or "")

    stand.run(scenario)


def test_without_a_ca_and_files_nothing_is_missed(stand: Stand) -> None:
    """SPIRE has the workload's identity, or FILE_MOUNTED_CERTS leaves it to the names istiod asks for."""
    stand.signer = None
    stand.options = stand.options._replace(ca=None)

    async def scenario() -> None:
        await eventually_async(lambda: stand.account.checked_at)
        assert (stand.secrets.reason(), stand.secrets.described()) == (None, [])
        stand.slot("default").listen(lambda: None)
        assert stand.slot("default").failures == 1
        stand.write(root=ROOT.pem)
        stand.secrets.files_changed()
        await stand.has("default")
        await stand.has("ROOTCA")
        assert (stand.secrets.reason(), stand.secrets.notes()) == (None, [])

    stand.run(scenario)


def test_mounted_certificates_that_are_missing_are_the_reason(stand: Stand) -> None:
    stand.signer = None
    stand.options = stand.options._replace(ca=None, is_mounted=True)

    async def scenario() -> None:
        await eventually_async(lambda: stand.account.checked_at)
        await eventually_async(lambda: stand.secrets.reason() != "no certificate yet")
        assert stand.secrets.reason() == f"{stand.options.certs.chain} is missing or empty"
        stand.write(root=ROOT.pem)
        await eventually_async(lambda: stand.secrets.reason() is None)

    stand.run(scenario)


def test_everything_about_a_certificate_but_its_key_is_described(stand: Stand) -> None:
    async def scenario() -> None:
        assert stand.secrets.described() == []
        await stand.issued()
        default, roots = stand.secrets.described()
        facts = stand.served().facts
        assert facts is not None
        now = stand.clock.now
        assert default == {
            "name": "default",
            "source": "ca",
            "subject": "",
            "spiffe_id": SPIFFE_ID,
            "serial": facts.serial,
            "not_before": stamp(now),
            "not_after": stamp(now + DAY),
            "issuer": "O=root 1",
            "key": "EC secp256r1",
            "fingerprint": facts.fingerprint,
            "next_renewal": stamp(now + DAY / 2),
            "last_error": None,
        }
        assert roots == {
            "name": "ROOTCA",
            "source": "ca",
            "roots": 1,
            "has_crl": False,
            "next_renewal": None,
            "last_error": None,
        }

    stand.run(scenario)


def test_the_token_is_looked_at_between_renewals(stand: Stand) -> None:
    problem: str | None = None

    def read() -> str:
        if problem is not None:
            raise IdentityError("token", problem)
        return "a.b.c"

    stand.tokens = Tokens(read, stand.log.scope, stand.clock, look_every_s=0.01)

    async def scenario() -> None:
        nonlocal problem
        await stand.issued()
        assert stand.secrets.notes() == []
        problem = "the token is gone"
        await eventually_async(stand.secrets.notes)
        assert stand.secrets.notes() == ["certificates: the token is gone"]
        problem = None
        await eventually_async(lambda: stand.secrets.notes() == [])

    stand.run(scenario)
    assert stand.log.lines[1:] == ["warn the token is gone; the CA may refuse us", "info the token is good again"]


def test_a_certificate_that_expires_soon_after_its_issue(stand: Stand) -> None:
    """The whole life of one, with a CA that is gone for good: served, kept, withdrawn, told."""
    stand.ca.lifetime_s = HOUR

    async def scenario() -> None:
        await stand.issued()
        told: list[str | None] = []
        default = stand.slot("default")
        default.listen(lambda: told.append(default.problem))
        stand.ca.fail()
        for _ in range(5):
            stand.clock.advance(HOUR / 5)
            stand.secrets.files_changed()
            await asyncio.sleep(0)
        await eventually_async(lambda: default.secret is None)
        assert stand.slot("ROOTCA").secret is not None
        assert told and told[0] is not None and "expired at" in told[0]

    stand.run(scenario)
