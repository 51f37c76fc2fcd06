"""The workload's own identity: the slots `default` and `ROOTCA`, from mounted files where they are, else from the CA.

It renews in the background and keeps what is good until it expires, whatever goes wrong meanwhile (reference
security-xds.md, section 3, with 14.6 to 14.9 done better). Runs as one task; `secrets` owns it.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pilot_agent.clock import Backoff, Clock, chance
from pilot_agent.errors import IdentityError
from pilot_agent.identity.account import Account
from pilot_agent.identity.certificate import CertificateFacts, Roots, stamp
from pilot_agent.identity.crypto import IN_PROCESS, Crypto
from pilot_agent.identity.keys import SigningRequest
from pilot_agent.identity.mounted import Reading
from pilot_agent.identity.options import IdentityOptions
from pilot_agent.identity.renewal import renewal_delay
from pilot_agent.identity.slots import Secret, Slot, key_pair, validation
from pilot_agent.identity.trust import merged_roots
from pilot_agent.log import Scope

if TYPE_CHECKING:
    from pilot_agent.identity.ca import Signer

Result = TypeVar("Result")

DEFAULT, ROOTCA = "default", "ROOTCA"
SHORT_LIFETIME_S = 300.0
LONGEST_WAIT_S = 60.0
"""The wall clock may jump, or the machine may have slept: what is due is looked at once a minute."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 15.0
LEAST_PAUSE_S = 0.5
"""Between two attempts that somebody's wish brings about."""
LEAST_CHAIN = 2


class _Issued(NamedTuple):
    """What a CA gave, judged."""

    pair: Secret
    roots: tuple[str, ...]
    warnings: tuple[str, ...]


class Workload:
    """`trust_bundle` and the mounted files' readings come in from outside; `changed` hears of every new secret."""

    def __init__(
        self,
        options: IdentityOptions,
        signer: "Signer | None",
        executor: Executor,
        account: Account,
        log: Scope,
        clock: Clock,
        changed: Callable[[], None],
        first_request: "asyncio.Future[SigningRequest] | None" = None,
        crypto: Crypto = IN_PROCESS,
    ) -> None:
        """`first_request` is being made already, for the first certificate."""
        self._options, self._signer, self._executor, self._account = options, signer, executor, account
        self._log, self._clock, self._changed, self._first_request = log, clock, changed, first_request
        self._crypto = crypto
        self.default, self.roots = Slot(DEFAULT, self._want), Slot(ROOTCA, self._want)
        self.origin = ""
        """`files` or `ca`: where `default` comes from; empty while there is none."""
        self.renew_at: float | None = None
        """Wall-clock seconds; None where nothing is to be renewed by us."""
        self.last_error: str | None = None
        """Why the last attempt failed, None since it succeeded."""
        self._file_roots: tuple[str, ...] = ()
        self._ca_roots: tuple[str, ...] = ()
        self.bundle: tuple[str, ...] = ()
        """The certificates of the trust bundle that is in use."""
        self._bundle_given: tuple[str, ...] = ()
        self._bundle_due = asyncio.Event()
        self._crl = b""
        self._has_file_pair = False
        self._file_error: str | None = None
        self._wishes = self._wishes_met = 0
        """A wish that comes during a renewal is not met by it: what it is about may have come too late."""
        self._wake = asyncio.Event()
        self._retry_at = 0.0
        self._ended_at: float | None = None
        self._backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        self._said: str | None = None

    @property
    def expires_at(self) -> float | None:
        secret = self.default.secret
        return secret.facts.not_after if secret is not None and secret.facts is not None else None

    def renew(self) -> None:
        """Renew now, whatever the time."""
        self._wishes += 1
        self._wake.set()

    def set_trust_bundle(self, blocks: Sequence[str]) -> None:
        """Roots to trust beside the CA's, a moment from now. A new bundle may mean a new CA: the certificate is renewed
        too.

        What is no certificate is left out: Envoy would refuse all roots for it.
        """
        bundle = tuple(sorted({block.strip() for block in blocks}))
        if bundle != self._bundle_given:
            self._bundle_given = bundle
            self._bundle_due.set()

    async def _take_bundles(self) -> None:
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        while True:
            await self._bundle_due.wait()
            self._bundle_due.clear()
            bundle = self._bundle_given
            try:
                usable = await self._in_thread(lambda bundle=bundle: self._usable(bundle))  # type: ignore[misc]
            except IdentityError as error:
                self._account.failures[error.kind] += 1
                self._log.error(f"the trust bundle can't be checked, and the one before stays: {error}")
                await asyncio.sleep(backoff.next())
                self._bundle_due.set()
                continue
            backoff.reset()
            if usable != self.bundle:
                self.bundle = usable
                self._publish_roots()
            if self.origin == "ca":
                self.renew()

    def _usable(self, bundle: Sequence[str]) -> tuple[str, ...]:
        """Raises IdentityError when that can't be told. In a thread."""
        if not any(bundle):
            return ()
        try:
            roots = self._crypto.check_roots("\n".join(bundle).encode(), "the trust bundle")
        except IdentityError as error:
            if error.kind == "crypto":
                raise
            roots = Roots((), (str(error),))
        for dropped in roots.dropped:
            self._log.warn(dropped)
        return roots.blocks

    def note_attempt(self, problem: str) -> None:
        """An attempt failed, and the call goes on with the next one: what is wrong should be seen before its end."""
        self.last_error = problem
        for slot in (self.default, self.roots):
            slot.note(problem)

    # Files

    async def take_files(self, reading: Reading, _is_news: bool, is_late: bool) -> bool:
        """A reading of the mounted files; whether they are all right as they are (not being there is)."""
        self._has_file_pair = reading.pair is not None
        if isinstance(reading.crl, bytes):
            self._crl = reading.crl
        elif reading.crl is None:
            self._crl = b""
        if isinstance(reading.roots, tuple) or reading.roots is None:
            self._file_roots = reading.roots or ()
        self._publish_roots()
        if isinstance(reading.pair, Secret):
            await self._take_file_pair(reading.pair)
        missing = self._missing_files(reading)
        problems = [*map(str, reading.errors), *missing]
        self._tell_of_files(reading, missing, is_late=is_late)
        self._wake.set()  # the CA may be needed, or not any more
        return not problems

    def _tell_of_files(self, reading: Reading, missing: list[str], *, is_late: bool) -> None:
        broken = str(reading.crl) if isinstance(reading.crl, IdentityError) else None
        for slot, part, crl in ((self.default, reading.pair, None), (self.roots, reading.roots, broken)):
            problem = str(part) if isinstance(part, IdentityError) else None
            if problem is None and part is None and missing and self._signer is None:
                problem = missing[0]
            if problem is None:
                if part is not None or crl is not None or self._signer is None:
                    slot.note(crl)
            elif slot.secret is None and is_late:
                slot.fail(problem)
            else:
                slot.note(problem)
        error = next(iter([*map(str, reading.errors), *missing]), None)
        if error is not None or self.origin == "files" or self.last_error == self._file_error:
            self.last_error = error  # never a word of the CA's failures, which are not over
        self._file_error = error

    def _missing_files(self, reading: Reading) -> list[str]:
        """What must come from files, and is not there."""
        if not self._options.is_mounted:
            return []
        files = self._options.certs
        found = ((reading.pair, files.chain), (reading.roots, files.root))
        return [f"{path} is missing or empty" for part, path in found if part is None]

    async def _take_file_pair(self, pair: Secret) -> None:
        assert pair.facts is not None
        is_new = self.default.offer(pair)
        self.origin, self.renew_at = "files", None
        if is_new:
            roots = self._file_roots or self._ca_roots
            warnings = await self._in_thread(lambda: self._warnings_about_files(pair, roots))
            self._announce(pair.facts, "certificate taken from its files", warnings)
            self._changed()

    # The CA

    async def run(self) -> None:
        """Have a certificate of the CA whenever one is needed, until cancelled. Never ends by a failure."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_bundles(), name="trust bundle")
            tasks.create_task(self._keep_certified(), name="certificates of the CA")

    async def _keep_certified(self) -> None:
        while True:
            delay = self._until_due()
            if delay > 0:
                await self._sleep(delay)
                self._drop_expired()
                continue
            attempt = asyncio.get_running_loop().create_task(self._attempt(), name="certificate of the CA")
            try:
                while not attempt.done():
                    # A CA may hang for longer than the certificate there is lasts.
                    await asyncio.wait({attempt}, timeout=self._until_expiry())
                    self._drop_expired()
            finally:
                attempt.cancel()
            self._ended_at = self._clock.monotonic()

    async def _attempt(self) -> None:
        try:
            await self._renew()
        except IdentityError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - a bug in one attempt must not end all renewals
            self._failed(IdentityError("internal", f"the attempt failed: {error!r}"))

    def _until_expiry(self) -> float:
        """Seconds until the certificate there is expires, LONGEST_WAIT_S at most."""
        expires_at = self.expires_at
        if expires_at is None:
            return LONGEST_WAIT_S
        return min(LONGEST_WAIT_S, max(0.1, expires_at - self._clock.wall()))

    def _until_due(self) -> float:
        """Seconds until the CA is to be asked; never more than until the certificate expires."""
        until_expiry, now = self._until_expiry(), self._clock.wall()
        if self._signer is None or self._has_file_pair:
            return until_expiry
        if self.origin == "ca" and self.default.secret is not None and self._wishes == self._wishes_met:
            until_renewal = max(0.0, (self.renew_at or 0.0) - now)
        else:
            until_renewal = 0.0
        return min(until_expiry, max(until_renewal, self._retry_at - self._clock.monotonic()))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _want(self, slot: Slot) -> None:
        """Somebody asks and there is nothing: no reason to sit out a long pause, or to wait for what can't come."""
        if self._signer is None:
            if not self._options.is_mounted and not self._has_file_pair:
                slot.fail(f"there is no CA to ask, and no certificate in {self._options.certs.chain}")
            return
        soonest = (self._ended_at or -LEAST_PAUSE_S) + LEAST_PAUSE_S
        self._retry_at = min(self._retry_at, max(soonest, self._clock.monotonic()))
        self._wake.set()

    async def _renew(self) -> None:
        assert self._signer is not None
        began, wishes = self._clock.monotonic(), self._wishes
        request = await self._request()
        chain = await self._signer.sign(request.csr, self._options.renewal.ttl_s)
        issued = await self._in_thread(lambda: self._judge(list(chain), request))
        if self._has_file_pair:
            return  # files came meanwhile, and they go first
        facts = issued.pair.facts
        assert facts is not None
        now = self._clock.wall()
        self._account.renewals += 1
        self._backoff.reset()
        self._retry_at, self._wishes_met, self.last_error, self._said = 0.0, wishes, None, None
        self._ca_roots = issued.roots
        self.renew_at = now + renewal_delay(self._options.renewal, now, facts.not_after, now, chance())
        self.origin = "ca"
        self.default.offer(issued.pair)
        self._publish_roots()
        took = (self._clock.monotonic() - began) * 1000
        self._announce(facts, "certificate issued", issued.warnings, ms=f"{took:.0f}", renewal=stamp(self.renew_at))
        self._changed()

    async def _request(self) -> SigningRequest:
        first, self._first_request = self._first_request, None
        if first is not None:
            return await first
        options = self._options
        return await self._in_thread(lambda: self._crypto.make_request(options.key, options.spiffe_id))

    def _judge(self, chain: list[str], request: SigningRequest) -> _Issued:
        """Raises IdentityError. In a thread."""
        if len(chain) < LEAST_CHAIN:
            raise IdentityError(
                "ca_answer",
                f"invalid empty CertChain: the CA gave {len(chain)} certificates, and a chain with its root has two",
            )
        joined = "".join(each if each.endswith("\n") else f"{each}\n" for each in chain).encode()
        now = self._clock.wall()
        found = self._crypto.check_issued(joined, request.key, chain[-1].encode(), self.bundle, now)
        pair = key_pair(joined, request.key, found.facts)
        warnings = self._warnings_about(found.facts, found.unverified)
        return _Issued(pair, found.roots.blocks, (*found.roots.dropped, *warnings))

    def _failed(self, error: IdentityError) -> None:
        delay = self._backoff.next()
        self._retry_at = self._clock.monotonic() + delay
        self._account.failures[error.kind] += 1
        problem = self.last_error = str(error)
        if problem != self._said:
            kept = "" if self.default.secret is None else "; the certificate there is stays in use until it expires"
            self._log.error(f"no certificate: {problem}{kept}", retry=f"{delay:.1f}s")
            self._said = problem
        for slot in (self.default, self.roots):
            slot.fail(problem)

    # Both

    def _publish_roots(self) -> None:
        roots = self._file_roots or self._ca_roots
        if not roots:
            return  # a bundle alone verifies nobody of this mesh
        if self.roots.offer(validation(merged_roots(roots, self.bundle), self._crl)):
            self._changed()

    def _drop_expired(self) -> None:
        expires_at = self.expires_at
        if expires_at is None or expires_at > self._clock.wall():
            return
        why = f" and could not be renewed: {self.last_error}" if self.last_error else ""
        problem = f"the certificate expired at {stamp(expires_at)}{why}"
        self._log.error(problem)
        self._account.failures["expired"] += 1
        self.origin, self.renew_at, self.last_error = "", None, problem
        self.default.withdraw(problem)
        self._changed()

    def _warnings_about_files(self, pair: Secret, roots: tuple[str, ...]) -> tuple[str, ...]:
        """In a thread."""
        assert pair.facts is not None
        try:
            unverified = self._crypto.why_unverified(pair.chain, [*roots, *self.bundle]) if roots else None
        except IdentityError as error:
            unknown = f"whether the root certificate verifies it is not known: {error}"
            return (*self._warnings_about(pair.facts, None), unknown)
        return self._warnings_about(pair.facts, unverified)

    def _warnings_about(self, facts: CertificateFacts, unverified: str | None) -> tuple[str, ...]:
        """What will hurt later."""
        found = []
        left = facts.not_after - self._clock.wall()
        if left < SHORT_LIFETIME_S:
            found.append(f"it is valid for {left:.0f} s only: a short failure of who renews it ends it")
        if facts.not_before > self._clock.wall():
            found.append(f"it begins in the future, at {stamp(facts.not_before)}: are the clocks right?")
        domain = facts.spiffe_id.removeprefix("spiffe://").partition("/")[0]
        if domain != self._options.trust_domain:
            found.append(
                f"its trust domain is {domain or 'not there'}, and TRUST_DOMAIN is {self._options.trust_domain}: "
                "peers may refuse it"
            )
        if unverified is not None:
            found.append(f"the root certificate does not verify it ({unverified}): peers with this root will refuse it")
        return tuple(found)

    def _announce(self, facts: CertificateFacts, what: str, warnings: Sequence[str], **labels: str) -> None:
        labels = {"spiffe_id": facts.spiffe_id, "serial": facts.serial, "not_after": stamp(facts.not_after), **labels}
        self._log.info(what, **labels)
        for warning in warnings:
            self._log.warn(f"{what}: {warning}")

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
