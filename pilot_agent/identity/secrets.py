"""The secret manager: every name that Envoy may ask for, and the tasks that keep what stands behind it good.

`default` and `ROOTCA` are the workload's; `file-cert:CHAIN~KEY` and `file-root:PATH` name files (reference
security-xds.md, section 2.1). Made and run by `supervise`; the SDS server asks for slots.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pilot_agent.clock import Backoff, Clock
from pilot_agent.errors import IdentityError
from pilot_agent.identity.account import Account
from pilot_agent.identity.certificate import stamp
from pilot_agent.identity.channel import system_bundle
from pilot_agent.identity.crypto import IN_PROCESS, Crypto
from pilot_agent.identity.keeper import Keeper
from pilot_agent.identity.mounted import Mounted, Reading
from pilot_agent.identity.options import Files, IdentityOptions
from pilot_agent.identity.output import Output
from pilot_agent.identity.slots import Secret, Slot, validation
from pilot_agent.identity.tokens import Tokens
from pilot_agent.identity.trust import merged_roots
from pilot_agent.identity.workload import DEFAULT, ROOTCA, Workload
from pilot_agent.log import Scope

if TYPE_CHECKING:
    from pilot_agent.identity.ca import Signer
    from pilot_agent.identity.keys import SigningRequest

FILE_CERT, FILE_ROOT, SYSTEM = "file-cert:", "file-root:", "file-root:system"
MOST_FILE_NAMES = 512


class _FileSecret(NamedTuple):
    slot: Slot
    keeper: Keeper
    task: "asyncio.Task[None]"


class Seams(NamedTuple):
    """What the secret manager needs of others. `watch_again` is called when `paths` changed."""

    executor: Executor
    log: Scope
    clock: Clock
    tokens: Tokens | None = None
    output: Output | None = None
    watch_again: Callable[[], None] = lambda: None
    crypto: Crypto = IN_PROCESS


class Secrets:
    """`slot(name)` for who serves them, `take_back(name)` when nobody does any more."""

    def __init__(
        self,
        options: IdentityOptions,
        signer: "Signer | None",
        account: Account,
        seams: Seams,
        first_request: "asyncio.Future[SigningRequest] | None" = None,
    ) -> None:
        self._options, self.account, self._seams = options, account, seams
        self._log, self._clock, self._executor = seams.log, seams.clock, seams.executor
        self.workload = Workload(
            options,
            signer,
            seams.executor,
            account,
            seams.log,
            seams.clock,
            self._has_changed,
            first_request,
            seams.crypto,
        )
        mounted = Mounted(self._certificate_files(), options.crl, seams.crypto)
        self._certs = self._keeper(mounted, self.workload.take_files)
        self._named: dict[str, _FileSecret] = {}
        self._output_due = asyncio.Event()
        self.output_problem: str | None = None

    def _certificate_files(self) -> Files:
        """None of our own output: reading it back would end all renewal (reference, section 3.1)."""
        certs, output = self._options.certs, self._options.output
        return Files() if output is not None and certs.chain is not None and certs.chain.parent == output else certs

    def _keeper(self, mounted: Mounted, take: Any) -> Keeper:
        return Keeper(mounted, take, self._executor, self.account, self._log, self._clock, self._options.debounce_s)

    async def run(self) -> None:
        """Until cancelled. Every task in here outlives its own failures."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._certs.run(), name="certificate files")
                tasks.create_task(self.workload.run(), name="workload certificate")
                if self._seams.tokens is not None:
                    tasks.create_task(self._look_at_token(self._seams.tokens), name="token")
                if self._seams.output is not None:
                    tasks.create_task(self._write_output(self._seams.output), name="OUTPUT_CERTS")
        finally:
            await asyncio.gather(*(self._drop(name) for name in list(self._named)), return_exceptions=True)

    # Names

    def slot(self, name: str) -> Slot:
        """Raises IdentityError of kind `unknown_name`: an unknown name is never a reason to hand out a key."""
        if name == DEFAULT:
            return self.workload.default
        if name == ROOTCA:
            return self.workload.roots
        if name not in self._named:
            files = files_named(name)
            if len(self._named) >= MOST_FILE_NAMES:
                raise IdentityError("unknown_name", f"more than {MOST_FILE_NAMES} file names are asked for at once")
            self._add(name, files)
        return self._named[name].slot

    def take_back(self, name: str) -> None:
        """Nobody serves `name` for now: files that nobody wants are not watched."""
        found = self._named.get(name)
        if found is not None and found.slot.listeners == 0:
            self._drop(name)
            self._seams.watch_again()

    def _add(self, name: str, files: Files) -> None:
        slot = Slot(name)
        is_root = files.root is not None

        async def take(reading: Reading, _is_news: bool, is_late: bool) -> bool:
            return _offer(slot, reading.roots if is_root else reading.pair, files, is_late=is_late)

        keeper = self._keeper(Mounted(files, None, self._seams.crypto), take)
        self._named[name] = _FileSecret(slot, keeper, asyncio.get_running_loop().create_task(keeper.run(), name=name))
        self._seams.watch_again()

    def _drop(self, name: str) -> "asyncio.Task[None]":
        task = self._named.pop(name).task
        task.cancel()
        return task

    # Files

    def paths(self) -> list[Path]:
        """Every file whose change matters, for the watcher."""
        keepers = [self._certs, *(each.keeper for each in self._named.values())]
        return [path for keeper in keepers for path in keeper.mounted.paths]

    def files_changed(self) -> None:
        """Some of them may have changed: look."""
        for keeper in (self._certs, *(each.keeper for each in self._named.values())):
            keeper.changed()

    async def _look_at_token(self, tokens: Tokens) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(tokens.look_every_s)
            await loop.run_in_executor(self._executor, tokens.look)

    # OUTPUT_CERTS

    def _has_changed(self) -> None:
        self._output_due.set()

    async def _write_output(self, output: Output) -> None:
        backoff, loop = Backoff(0.5, 15.0), asyncio.get_running_loop()
        while True:
            delay: float | None = None
            pair, roots = self.workload.default.secret, self.workload.roots.secret
            try:
                is_new = await loop.run_in_executor(self._executor, output.write, pair, roots)
                self.account.outputs += is_new
                if self.output_problem is not None:
                    self._log.info(f"OUTPUT_CERTS {output.directory} is written again")
                self.output_problem = None
                backoff.reset()
            except IdentityError as error:
                delay = backoff.next()
                self.account.failures[error.kind] += 1
                if str(error) != self.output_problem:
                    self._log.error(f"{error}; it is tried again until it works")
                self.output_problem = str(error)
            try:
                async with asyncio.timeout(delay):
                    await self._output_due.wait()
            except TimeoutError:
                pass
            self._output_due.clear()

    # What is told of it

    def reason(self) -> str | None:
        """Why this proxy has no identity to serve with; None when it has, or needs none of ours."""
        workload = self.workload
        if self._options.is_workload_ours or workload.origin:
            for slot in (workload.default, workload.roots):
                if slot.secret is None:
                    return slot.problem or "no certificate yet"
        output = self._seams.output
        if output is not None and not output.is_complete:
            return self.output_problem or f"OUTPUT_CERTS {output.directory} is not written yet"
        return None

    def notes(self) -> list[str]:
        """What is wrong and does not make the proxy unready: the certificate there is stays in use."""
        slots = [self.workload.default, self.workload.roots, *(each.slot for each in self._named.values())]
        found = [f"certificates: {slot.name}: {slot.problem}" for slot in slots if slot.problem is not None]
        token = self._seams.tokens.state.problem if self._seams.tokens is not None else None
        return [
            *dict.fromkeys(found),
            *([f"certificates: {self.output_problem}"] if self.output_problem else []),
            *([f"certificates: {token}"] if token else []),
        ]

    def described(self) -> list[dict[str, Any]]:
        """For /debug/certs: what each name stands for, in plain data without secrets."""
        slots = [self.workload.default, self.workload.roots, *(each.slot for each in self._named.values())]
        return [self._described(slot) for slot in slots if slot.secret is not None or slot.problem is not None]

    def _described(self, slot: Slot) -> dict[str, Any]:
        workload, secret = self.workload, slot.secret
        renew_at = workload.renew_at if slot is workload.default else None
        origin = workload.origin if slot in (workload.default, workload.roots) else "files"
        return {
            "name": slot.name,
            "source": origin or None,
            **(_facts(secret) if secret is not None else {}),
            "next_renewal": stamp(renew_at) if renew_at is not None else None,
            "last_error": slot.problem,
        }


def _facts(secret: Secret) -> dict[str, Any]:
    facts = secret.facts
    if facts is None:
        return {"roots": secret.roots.count(b"-----BEGIN CERTIFICATE"), "has_crl": bool(secret.crl)}
    return {
        "subject": facts.subject,
        "spiffe_id": facts.spiffe_id,
        "serial": facts.serial,
        "not_before": stamp(facts.not_before),
        "not_after": stamp(facts.not_after),
        "issuer": facts.issuer,
        "key": facts.key,
        "fingerprint": facts.fingerprint,
    }


def _offer(slot: Slot, part: Secret | tuple[str, ...] | IdentityError | None, files: Files, *, is_late: bool) -> bool:
    """Put what files hold into the slot; whether it is all right."""
    if isinstance(part, Secret):
        slot.offer(part)
        return True
    if isinstance(part, tuple):
        slot.offer(validation(merged_roots(part)))
        return True
    problem = str(part) if part is not None else f"{files.root or files.chain} is missing or empty"
    if is_late:
        slot.fail(problem)
    else:
        slot.note(problem)
    return False


def files_named(name: str) -> Files:
    """The files an SDS name asks for. Raises IdentityError of kind `unknown_name`."""
    if name == SYSTEM:
        bundle = system_bundle()
        if bundle is None:
            raise IdentityError("unknown_name", "this system has no bundle of root certificates")
        return Files(root=bundle)
    parts = name.partition(":")[2].split("~")
    if name.startswith(FILE_ROOT) and len(parts) == 1 and parts[0]:
        return Files(root=_path(parts[0]))
    if name.startswith(FILE_CERT) and len(parts) == 2 and all(parts):
        return Files(chain=_path(parts[0]), key=_path(parts[1]))
    raise IdentityError(
        "unknown_name", f"unknown name: use {DEFAULT}, {ROOTCA}, {FILE_CERT}CHAIN~KEY, {FILE_ROOT}PATH or {SYSTEM}"
    )


def _path(text: str) -> Path:
    if "\0" in text:
        raise IdentityError("unknown_name", "a file name can't have a null byte")
    return Path(text).absolute()
