"""The workload's own certificate: had, renewed, kept through failures, withdrawn when it is over."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilot_agent.errors import IdentityError
from pilot_agent.identity import workload as workload_module
from pilot_agent.identity.account import Account
from pilot_agent.identity.certificate import check_pair, stamp
from pilot_agent.identity.keys import SigningRequest, make_request
from pilot_agent.identity.mounted import Reading
from pilot_agent.identity.options import IdentityOptions, Renewal
from pilot_agent.identity.slots import Secret, key_pair
from pilot_agent.identity.trust import merged_roots
from pilot_agent.identity.workload import Workload
from tests.support.authority import Authority, Pair
from tests.support.clocks import ManualClock
from tests.support.confidential import confide, found_in
from tests.support.eventually_async import eventually_async
from tests.support.recorded_log import RecordedLog
from tests.unit.identity.signers import DAY, HOUR, SPIFFE_ID, FakeSigner, identity_options

ROOT = Authority("root 1")
NOTHING = Reading()


class Stand:
    """A workload whose clock stands still; its CA is `signer`."""

    def __init__(self, directory: Path) -> None:
        self.options: IdentityOptions = identity_options(directory)
        self.clock, self.log, self.account = ManualClock(), RecordedLog(), Account()
        self.clock.now = float(int(time.time()))
        self.signer: FakeSigner | None = FakeSigner(self.clock, ROOT)
        self.first_request: SigningRequest | None = None
        self.changes = 0
        self.reading = NOTHING
        self.workload: Workload

    @property
    def ca(self) -> FakeSigner:
        assert self.signer is not None
        return self.signer

    def _changed(self) -> None:
        self.changes += 1

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            first: asyncio.Future[SigningRequest] | None = None
            if self.first_request is not None:
                first = loop.create_future()
                first.set_result(self.first_request)
            with ThreadPoolExecutor(2) as executor:
                arguments = (executor, self.account, self.log.scope, self.clock, self._changed, first)
                self.workload = Workload(self.options, self.signer, *arguments)
                task = asyncio.create_task(self.workload.run())
                try:
                    await scenario()
                finally:
                    is_over = task.done()
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                assert not is_over, "it never ends by itself"

        asyncio.run(main())
        secret = self.workload.default.secret
        confide(secret.key if secret is not None else b"")
        assert found_in("\n".join(self.log.lines)) == []

    async def look(self) -> None:
        """A look at the files wakes it, and changes nothing else."""
        await self.workload.take_files(self.reading, False, False)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.look()

    async def renewed(self, times: int) -> None:
        await eventually_async(lambda: self.account.renewals >= times)
        assert self.account.renewals == times

    async def failed(self, times: int) -> None:
        await eventually_async(lambda: sum(self.account.failures.values()) >= times)
        assert sum(self.account.failures.values()) == times

    @property
    def pair(self) -> Secret:
        assert self.workload.default.secret is not None
        return self.workload.default.secret

    @property
    def roots(self) -> bytes:
        assert self.workload.roots.secret is not None
        return self.workload.roots.secret.roots

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.log.lines if line.startswith("warn ")]

    @property
    def errors(self) -> list[str]:
        return [line for line in self.log.lines if line.startswith("error ")]


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def file_pair(now: float, pair: Pair | None = None, lifetime_s: float = HOUR) -> Secret:
    pair = pair or ROOT.pair(SPIFFE_ID, lifetime_s=lifetime_s)
    chain, key = pair.chain.encode(), pair.key.encode()
    return key_pair(chain, key, check_pair(chain, key, "it", now))


def mismatch() -> IdentityError:
    return IdentityError("key_mismatch", "the private key does not belong to it")


# The first certificate


def test_the_first_certificate_is_had_without_being_asked_for(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        workload = stand.workload
        assert stand.pair.facts is not None
        assert stand.pair.facts.spiffe_id == SPIFFE_ID
        check_pair(stand.pair.chain, stand.pair.key, "it", stand.clock.now)
        assert stand.pair.chain.endswith(ROOT.pem.encode()), "the root is part of the chain, as in Istio"
        assert stand.roots == ROOT.pem.strip().encode()
        assert (workload.origin, workload.last_error) == ("ca", None)
        assert workload.renew_at == stand.clock.now + DAY / 2
        assert workload.expires_at == stand.clock.now + DAY

    stand.run(scenario)
    assert stand.ca.requests[0][1] == int(DAY)
    assert stand.changes >= 1
    assert stand.log.lines == ["info certificate issued"]


def test_the_request_that_was_made_early_is_the_first(stand: Stand) -> None:
    stand.first_request = make_request(stand.options.key, SPIFFE_ID)

    async def scenario() -> None:
        await stand.renewed(1)
        assert stand.first_request is not None
        assert stand.pair.key == stand.first_request.key
        stand.workload.renew()
        await stand.renewed(2)
        assert stand.pair.key != stand.first_request.key

    stand.run(scenario)
    assert stand.ca.requests[0][0] == stand.first_request.csr
    assert stand.ca.requests[1][0] != stand.first_request.csr


def test_newlines_are_added_where_the_ca_left_them_out(stand: Stand) -> None:
    stand.ca.answer = lambda chain: [chain[0].strip(), chain[1].strip()]

    async def scenario() -> None:
        await stand.renewed(1)
        assert b"-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----" in stand.pair.chain
        assert stand.pair.chain.endswith(b"-----\n")

    stand.run(scenario)


def test_the_last_certificate_is_the_root(stand: Stand) -> None:
    intermediate = Authority("intermediate", ROOT)
    stand.ca.authority = intermediate
    stand.ca.answer = lambda chain: [*chain, ROOT.pem]

    async def scenario() -> None:
        await stand.renewed(1)
        assert stand.roots == ROOT.pem.strip().encode()
        assert intermediate.pem.encode() in stand.pair.chain

    stand.run(scenario)
    assert stand.warnings == []


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda chain: [], "ca_answer", "the CA gave 0 certificates"),
        (lambda chain: chain[:1], "ca_answer", "the CA gave 1 certificates"),
        (lambda chain: ["no", "PEM"], "pem", "the certificate of the CA has no certificate in it"),
        (lambda chain: [chain[0], "no PEM"], "pem", "the root certificate of the CA has no usable certificate in it"),
        (lambda chain: [chain[1], chain[0]], "key_mismatch", "does not belong to the certificate of the CA"),
    ],
)
def test_an_answer_that_is_no_chain_is_refused(
    stand: Stand, answer: Callable[[list[str]], list[str]], kind: str, words: str
) -> None:
    stand.ca.answer = answer

    async def scenario() -> None:
        await stand.failed(1)
        assert stand.workload.default.secret is None
        assert words in (stand.workload.default.problem or "")

    stand.run(scenario)
    assert (stand.account.failures, stand.account.renewals) == ({kind: 1}, 0)


@pytest.mark.parametrize("fault", ["wrong key", "expired", "not yet valid"])
def test_a_certificate_that_can_not_be_used_is_refused(stand: Stand, fault: str) -> None:
    stand.ca.has_wrong_key = fault == "wrong key"
    stand.ca.not_before = lambda: stand.clock.now + {"expired": -2 * DAY, "not yet valid": HOUR}.get(fault, 0.0)

    async def scenario() -> None:
        await stand.failed(1)
        assert stand.workload.default.secret is None
        assert stand.workload.roots.secret is None

    stand.run(scenario)
    kind = {"wrong key": "key_mismatch", "expired": "expired", "not yet valid": "not_yet_valid"}[fault]
    assert stand.account.failures == {kind: 1}


def test_a_bug_in_one_attempt_does_not_end_the_others(stand: Stand) -> None:
    stand.ca.error = RuntimeError("a bug")

    async def scenario() -> None:
        await stand.failed(1)
        stand.ca.error = None
        await stand.pass_time(1)
        await stand.renewed(1)

    stand.run(scenario)
    assert stand.account.failures == {"internal": 1}
    assert stand.errors == ["error no certificate: the attempt failed: RuntimeError('a bug')"]


# Renewal


def test_it_is_renewed_at_its_time_and_not_before(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        first = stand.pair
        await stand.pass_time(DAY / 2 - 1)
        await stand.look()
        assert stand.ca.calls == 1
        await stand.pass_time(1)
        await stand.renewed(2)
        assert stand.pair.version != first.version
        assert stand.workload.renew_at == stand.clock.now + DAY / 2
        await stand.pass_time(DAY / 2)
        await stand.renewed(3)

    stand.run(scenario)
    assert stand.ca.calls == 3


def test_the_time_counts_from_when_it_came_to_when_it_ends(stand: Stand) -> None:
    """Not from its beginning, which a CA dates back: Istio's formula."""
    stand.ca.not_before = lambda: stand.clock.now - HOUR

    async def scenario() -> None:
        await stand.renewed(1)
        assert stand.workload.renew_at == stand.clock.now + (DAY - HOUR) / 2

    stand.run(scenario)


def test_the_time_is_within_the_jitter(stand: Stand) -> None:
    stand.options = stand.options._replace(renewal=Renewal(int(DAY), 0.5, 0.1))

    async def scenario() -> None:
        found = set()
        for times in range(1, 6):
            stand.workload.renew()
            await eventually_async(lambda times=times: stand.account.renewals >= times)  # type: ignore[misc]
            assert stand.workload.renew_at is not None
            found.add(stand.workload.renew_at - stand.clock.now)
        assert all(DAY * 0.4 <= each <= DAY * 0.6 for each in found)
        assert len(found) > 1

    stand.run(scenario)


def test_a_ratio_of_one_leaves_a_second(stand: Stand) -> None:
    stand.options = stand.options._replace(renewal=Renewal(int(DAY), 1.0, 0.0))

    async def scenario() -> None:
        await stand.renewed(1)
        await stand.look()
        await stand.look()
        assert stand.ca.calls == 1
        await stand.pass_time(1)
        await stand.renewed(2)

    stand.run(scenario)


def test_a_clock_that_jumped_is_noticed_without_being_woken(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop's lid, or a suspended virtual machine."""
    monkeypatch.setattr(workload_module, "LONGEST_WAIT_S", 0.01)

    async def scenario() -> None:
        await stand.renewed(1)
        stand.clock.advance(DAY / 2)
        await stand.renewed(2)

    stand.run(scenario)


def test_it_is_renewed_on_request(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        first = stand.pair
        stand.workload.renew()
        await stand.renewed(2)
        assert stand.pair.version != first.version
        await stand.look()

    stand.run(scenario)
    assert stand.ca.calls == 2


def test_a_request_that_fails_is_not_forgotten(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        stand.ca.fail()
        stand.workload.renew()
        await stand.failed(1)
        stand.ca.error = None
        await stand.pass_time(1)
        await stand.renewed(2)

    stand.run(scenario)


def test_a_request_during_a_renewal_is_one_more_renewal(stand: Stand) -> None:
    """What it was about, such as a new root, may have come too late for the one that is under way."""

    async def scenario() -> None:
        await stand.renewed(1)
        stand.ca.hold()
        stand.workload.renew()
        await eventually_async(lambda: stand.ca.calls == 2)
        stand.workload.renew()
        stand.workload.renew()
        stand.ca.release()
        await eventually_async(lambda: stand.account.renewals == 3)
        await stand.look()

    stand.run(scenario)
    assert stand.ca.calls == 3


def test_the_same_root_is_told_once_and_a_new_one_again(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        told: list[bytes] = []
        stand.workload.roots.listen(lambda: told.append(stand.roots))
        stand.workload.renew()
        await stand.renewed(2)
        assert told == []
        stand.ca.authority = other = Authority("root 2")
        stand.workload.renew()
        await stand.renewed(3)
        assert told == [other.pem.strip().encode()]

    stand.run(scenario)


# Failures


def test_a_failure_keeps_what_there_is_and_is_tried_again_with_pauses(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        first, workload = stand.pair, stand.workload
        stand.ca.fail()
        await stand.pass_time(DAY / 2)
        await stand.failed(1)
        assert stand.pair is first
        assert [slot.problem for slot in (workload.default, workload.roots)] == ["the CA is down"] * 2
        assert workload.last_error == "the CA is down"
        await stand.look()
        assert stand.ca.calls == 2, "the pause is not over"
        for attempt, pause in enumerate((0.5, 1, 2, 4, 8, 15, 15), 2):
            await stand.pass_time(pause)
            await stand.failed(attempt)
        assert stand.pair is first
        stand.ca.error = None
        await stand.pass_time(15)
        await stand.renewed(2)
        assert stand.pair is not first
        assert {workload.default.problem, workload.roots.problem, workload.last_error} == {None}

    stand.run(scenario)
    assert stand.errors == [
        "error no certificate: the CA is down; the certificate there is stays in use until it expires"
    ], "once, as long as it says the same"
    assert stand.account.failures == {"ca_unavailable": 8}


def test_another_failure_is_another_line(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.fail()
        await stand.failed(1)
        stand.ca.fail("ca_denied", "the CA does not know us")
        await stand.pass_time(1)
        await stand.failed(2)

    stand.run(scenario)
    assert stand.errors == ["error no certificate: the CA is down", "error no certificate: the CA does not know us"]


def test_the_pauses_begin_anew_after_a_success(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.fail()
        await stand.failed(1)
        for attempt in (2, 3, 4):
            await stand.pass_time(15)
            await stand.failed(attempt)
        stand.ca.error = None
        await stand.pass_time(15)
        await stand.renewed(1)
        stand.ca.fail()
        stand.workload.renew()
        await stand.failed(5)
        await stand.pass_time(0.5)
        await stand.failed(6)

    stand.run(scenario)


def test_an_expired_certificate_is_withdrawn_and_its_roots_stay(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        workload, changes, not_after = stand.workload, stand.changes, stand.workload.expires_at
        assert not_after is not None
        stand.ca.fail()
        await stand.pass_time(DAY - 1)
        await stand.failed(1)
        assert workload.default.secret is not None
        await stand.pass_time(1)
        await eventually_async(lambda: workload.default.secret is None)
        said = f"the certificate expired at {stamp(not_after)} and could not be renewed: the CA is down"
        assert f"error {said}" in stand.log.lines
        assert workload.roots.secret is not None
        assert (workload.origin, workload.renew_at, workload.expires_at) == ("", None, None)
        assert stand.changes > changes
        assert stand.account.failures["expired"] == 1
        stand.ca.error = None
        await stand.pass_time(15)
        await stand.renewed(2)
        assert workload.default.problem is None

    stand.run(scenario)


def test_a_call_that_hangs_does_not_keep_an_expired_certificate(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_module, "LONGEST_WAIT_S", 0.02)

    async def scenario() -> None:
        await eventually_async(lambda: stand.workload.default.secret is not None)
        stand.ca.hold()
        stand.workload.renew()
        await eventually_async(lambda: stand.ca.calls == 2)
        stand.clock.advance(DAY + 1)
        await eventually_async(lambda: stand.workload.default.secret is None)
        assert "expired at" in str(stand.workload.default.problem)
        stand.ca.release()
        await eventually_async(lambda: stand.workload.default.secret is not None)

    stand.run(scenario)


def test_a_look_at_files_that_are_not_there_hides_no_failure_of_the_ca(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.fail()
        await stand.failed(1)
        await stand.look()
        assert stand.workload.last_error == stand.workload.default.problem == "the CA is down"

    stand.run(scenario)


def test_what_fails_between_the_attempts_of_a_call_is_seen(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.hold()
        await eventually_async(lambda: stand.ca.calls)
        stand.workload.note_attempt("CA: UNAVAILABLE")
        assert stand.workload.last_error == stand.workload.default.problem == "CA: UNAVAILABLE"
        assert stand.workload.roots.problem == "CA: UNAVAILABLE"
        assert stand.workload.default.failures == 0, "the call goes on"
        stand.ca.release()
        await stand.renewed(1)
        assert stand.workload.default.problem is None

    stand.run(scenario)


def test_it_can_be_ended_in_the_middle_of_a_call(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.hold()
        await eventually_async(lambda: stand.ca.calls)

    stand.run(scenario)


# Somebody waits


def test_somebody_who_waits_shortens_the_pause_but_not_to_nothing(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.fail()
        await stand.failed(1)
        for attempt in (2, 3, 4, 5):
            await stand.pass_time(15)
            await stand.failed(attempt)
        stand.workload.default.listen(lambda: None)
        await stand.look()
        assert stand.ca.calls == 5, "two attempts are half a second apart"
        await stand.pass_time(0.5)
        await stand.failed(6)

    stand.run(scenario)


def test_who_waits_is_told_of_every_failure(stand: Stand) -> None:
    told: list[int] = []

    async def scenario() -> None:
        stand.ca.fail()
        stand.workload.default.listen(lambda: told.append(stand.workload.default.failures))
        await stand.failed(1)
        await stand.pass_time(0.5)
        await stand.failed(2)
        stand.ca.error = None
        await stand.pass_time(1)
        await stand.renewed(1)

    stand.run(scenario)
    assert told == [1, 2, 2]


def test_without_a_ca_who_waits_is_told_at_once(stand: Stand) -> None:
    stand.signer = None

    async def scenario() -> None:
        told: list[str | None] = []
        default = stand.workload.default
        default.listen(lambda: told.append(default.problem))
        assert told == [f"there is no CA to ask, and no certificate in {stand.options.certs.chain}"]

    stand.run(scenario)


# Files


def test_files_go_before_the_ca(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        pair = file_pair(stand.clock.now)
        stand.reading = Reading(pair=pair, roots=(ROOT.pem,))
        changes = stand.changes
        await stand.look()
        assert stand.pair is pair
        assert (stand.workload.origin, stand.workload.renew_at) == ("files", None)
        assert stand.changes > changes
        await stand.pass_time(DAY / 2)
        await stand.look()

    stand.run(scenario)
    assert stand.ca.calls == 1
    assert "info certificate taken from its files" in stand.log.lines


def test_files_that_go_leave_it_to_the_ca(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.hold()
        pair = file_pair(stand.clock.now)
        stand.reading = Reading(pair=pair, roots=(Authority("file root").pem,))
        await stand.look()
        stand.ca.release()
        await eventually_async(lambda: stand.workload.origin == "files")
        stand.reading = NOTHING
        await stand.look()
        await stand.renewed(1)
        assert (stand.pair is pair, stand.workload.origin) == (False, "ca")
        assert stand.roots == ROOT.pem.strip().encode()

    stand.run(scenario)


def test_files_that_come_during_a_call_win(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.hold()
        await eventually_async(lambda: stand.ca.calls)
        pair = file_pair(stand.clock.now)
        stand.reading = Reading(pair=pair)
        await stand.look()
        stand.ca.release()
        await stand.look()
        await eventually_async(lambda: stand.workload._ended_at is not None)
        assert (stand.pair is pair, stand.workload.origin, stand.account.renewals) == (True, "files", 0)

    stand.run(scenario)


def test_a_mismatch_keeps_what_there_was(stand: Stand) -> None:
    async def scenario() -> None:
        pair = file_pair(stand.clock.now)
        stand.reading = Reading(pair=pair)
        await stand.look()
        stand.reading = Reading(pair=mismatch())
        assert not await stand.workload.take_files(stand.reading, True, True)
        assert (stand.pair is pair, stand.workload.default.problem) == (True, str(mismatch()))
        assert (stand.workload.default.failures, stand.workload.last_error) == (0, str(mismatch()))
        stand.reading = Reading(pair=pair)
        assert await stand.workload.take_files(stand.reading, True, False)
        assert (stand.workload.default.problem, stand.workload.last_error) == (None, None)

    stand.signer = None
    stand.run(scenario)


def test_wrong_files_are_given_time_before_who_waits_is_told(stand: Stand) -> None:
    stand.signer = None
    stand.options = stand.options._replace(is_mounted=True)

    async def scenario() -> None:
        default = stand.workload.default
        default.listen(lambda: None)
        reading = Reading(pair=mismatch(), roots=(ROOT.pem,))
        assert not await stand.workload.take_files(reading, True, False)
        assert (default.failures, default.problem) == (0, str(mismatch()))
        assert not await stand.workload.take_files(reading, False, True)
        assert (default.failures, default.problem) == (1, str(mismatch()))

    stand.run(scenario)


def test_mounted_files_that_are_missing_are_named(stand: Stand) -> None:
    stand.signer = None
    stand.options = stand.options._replace(is_mounted=True)

    async def scenario() -> None:
        assert not await stand.workload.take_files(NOTHING, True, False)
        assert stand.workload.default.problem == f"{stand.options.certs.chain} is missing or empty"
        assert stand.workload.last_error == f"{stand.options.certs.chain} is missing or empty"
        assert not await stand.workload.take_files(Reading(pair=file_pair(stand.clock.now)), True, False)
        assert stand.workload.roots.problem == f"{stand.options.certs.root} is missing or empty"
        assert await stand.workload.take_files(Reading(pair=file_pair(stand.clock.now), roots=(ROOT.pem,)), True, False)
        assert stand.workload.last_error is None

    stand.run(scenario)


def test_an_expired_pair_of_files_is_withdrawn_and_stays_so(stand: Stand) -> None:
    stand.signer = None

    async def scenario() -> None:
        stand.reading = Reading(pair=file_pair(stand.clock.now, lifetime_s=60))
        await stand.look()
        expired = IdentityError("expired", "it expired")
        stand.clock.advance(61)
        stand.reading = Reading(pair=expired)
        await stand.look()
        await eventually_async(lambda: stand.workload.default.secret is None)
        await stand.look()
        assert stand.workload.default.secret is None
        stand.reading = Reading(pair=file_pair(stand.clock.now))
        await stand.look()
        assert stand.workload.default.secret is not None

    stand.run(scenario)


def test_roots_of_files_go_before_the_cas(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        other = Authority("file root").pem
        stand.reading = Reading(roots=(other,))
        await stand.look()
        assert stand.roots == other.strip().encode()
        stand.reading = Reading(roots=IdentityError("pem", "no roots"))
        await stand.look()
        assert stand.roots == other.strip().encode(), "what was good stays"
        assert stand.workload.roots.problem == "no roots"
        stand.reading = NOTHING
        await stand.look()
        assert stand.roots == ROOT.pem.strip().encode()
        assert stand.workload.roots.problem is None

    stand.run(scenario)


# Revocation


def test_a_revocation_list_comes_with_the_roots_and_its_change_is_news(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        told: list[bytes] = []
        slot = stand.workload.roots

        def note() -> None:
            assert slot.secret is not None
            told.append(slot.secret.crl)

        slot.listen(note)
        one, two = ROOT.crl(1).encode(), ROOT.crl(2).encode()
        for reading in (Reading(crl=one), Reading(crl=one), Reading(crl=two), NOTHING):
            stand.reading = reading
            await stand.look()
        assert told == [one, two, b""]

    stand.run(scenario)


def test_a_broken_revocation_list_keeps_the_old_one_and_is_told_until_it_is_mended(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        crl = ROOT.crl(1).encode()
        stand.reading = Reading(crl=crl)
        await stand.look()
        version = stand.workload.roots.secret.version if stand.workload.roots.secret is not None else ""
        stand.reading = Reading(crl=IdentityError("pem", "the revocation list can't be read"))
        assert not await stand.workload.take_files(stand.reading, True, False)
        assert stand.workload.roots.secret is not None
        assert (stand.workload.roots.secret.version, stand.workload.roots.secret.crl) == (version, crl)
        assert stand.workload.roots.problem == "the revocation list can't be read"
        assert stand.workload.last_error == "the revocation list can't be read"
        stand.reading = Reading(crl=crl)
        assert await stand.workload.take_files(stand.reading, True, False)
        assert {stand.workload.roots.problem, stand.workload.last_error} == {None}

    stand.run(scenario)


# The trust bundle


def test_a_trust_bundle_is_merged_and_renews_the_certificate(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        other = Authority("another mesh").pem
        stand.workload.set_trust_bundle([other, ROOT.pem])
        await eventually_async(lambda: stand.roots == merged_roots([other], [ROOT.pem]))
        await stand.renewed(2)
        stand.workload.set_trust_bundle([f"\n{ROOT.pem}", other, other])
        await stand.look()
        assert stand.ca.calls == 2, "the same bundle is none"
        stand.workload.set_trust_bundle([])
        await eventually_async(lambda: stand.roots == ROOT.pem.strip().encode())
        await stand.renewed(3)

    stand.run(scenario)


def test_a_bundle_alone_is_no_roots(stand: Stand) -> None:
    async def scenario() -> None:
        stand.ca.hold()
        await eventually_async(lambda: stand.ca.calls)
        other = Authority("another mesh").pem
        stand.workload.set_trust_bundle([other])
        await eventually_async(lambda: stand.workload.bundle == (other.strip(),))
        assert stand.workload.roots.secret is None
        stand.ca.release()
        await stand.renewed(1)
        assert stand.roots == merged_roots([other], [ROOT.pem])

    stand.run(scenario)
    assert stand.ca.calls == 1


def test_a_bundle_renews_nothing_that_comes_from_files(stand: Stand) -> None:
    async def scenario() -> None:
        stand.reading = Reading(pair=file_pair(stand.clock.now), roots=(ROOT.pem,))
        await stand.look()
        other = Authority("another mesh").pem
        stand.workload.set_trust_bundle([other])
        await eventually_async(lambda: stand.roots == merged_roots([other], [ROOT.pem]))

    stand.signer = None
    stand.run(scenario)


def test_a_bundle_verifies_a_certificate_of_a_new_root(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        new = Authority("root 2")
        stand.ca.authority = new
        stand.ca.answer = lambda chain: [chain[0], ROOT.pem]
        stand.workload.set_trust_bundle([new.pem])
        await stand.renewed(2)

    stand.run(scenario)
    assert stand.warnings == []


def test_what_is_no_certificate_in_a_bundle_is_left_out(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.renewed(1)
        other = Authority("another mesh").pem
        bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
        stand.workload.set_trust_bundle([bad, other, "no PEM"])
        await eventually_async(lambda: stand.roots == merged_roots([other], [ROOT.pem]))
        await stand.renewed(2)
        stand.workload.set_trust_bundle([bad])
        await eventually_async(lambda: stand.roots == ROOT.pem.strip().encode())

    stand.run(scenario)
    assert stand.account.failures == {}
    assert any("the trust bundle" in line for line in stand.warnings)


# Warnings before pain


def test_a_short_lifetime_is_warned_of(stand: Stand) -> None:
    stand.ca.lifetime_s = 299
    stand.run(lambda: stand.renewed(1))
    (line,) = stand.warnings
    assert "it is valid for 299 s only" in line


def test_a_beginning_in_the_future_is_warned_of(stand: Stand) -> None:
    stand.ca.not_before = lambda: stand.clock.now + 30
    stand.run(lambda: stand.renewed(1))
    (line,) = stand.warnings
    assert f"it begins in the future, at {stamp(stand.clock.now + 30)}" in line


@pytest.mark.parametrize("name", ["spiffe://elsewhere/ns/foo/sa/bar", "https://cluster.local/x"])
def test_another_trust_domain_is_warned_of(stand: Stand, name: str) -> None:
    stand.ca.name = name
    stand.run(lambda: stand.renewed(1))
    (line,) = stand.warnings
    assert "TRUST_DOMAIN is cluster.local" in line


def test_a_root_that_does_not_verify_is_warned_of(stand: Stand) -> None:
    other = Authority("root 2")
    stand.ca.answer = lambda chain: [chain[0], other.pem]
    stand.run(lambda: stand.renewed(1))
    (line,) = stand.warnings
    assert "the root certificate does not verify it (no root certificate we have issued O=root 1)" in line


def test_a_root_that_is_left_out_is_warned_of(stand: Stand) -> None:
    bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    stand.ca.answer = lambda chain: [*chain[:-1], bad + chain[-1]]
    stand.run(lambda: stand.failed(1))
    assert stand.account.failures == {"pem": 1}, "the chain with it could not be served"


def test_the_same_of_files(stand: Stand) -> None:
    stand.signer = None

    async def scenario() -> None:
        pair = Authority("root 2").pair("spiffe://elsewhere/x", lifetime_s=60)
        stand.reading = Reading(pair=file_pair(stand.clock.now, pair), roots=(ROOT.pem,))
        await stand.look()
        await stand.look()

    stand.run(scenario)
    assert len(stand.warnings) == 3, "lifetime, trust domain, root; once"
    assert all(line.startswith("warn certificate taken from its files: ") for line in stand.warnings)
