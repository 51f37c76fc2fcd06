"""The workload's certificate from a CA over the network: every fault of it, and what is left when it is over."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilot_agent.clock import SystemClock
from pilot_agent.identity import ca as ca_module
from pilot_agent.identity import workload as workload_module
from pilot_agent.identity.account import Account
from pilot_agent.identity.ca import IstiodCa
from pilot_agent.identity.certificate import check_pair
from pilot_agent.identity.options import ISTIOD_NAME, CaOptions, Files
from pilot_agent.identity.tokens import Tokens, token_file
from pilot_agent.identity.workload import Workload
from pilot_agent.values import HostPort
from tests.support.confidential import confide, found_in
from tests.support.eventually_async import eventually_async
from tests.support.fake_istiod import FakeIstiod, running
from tests.support.recorded_log import RecordedLog
from tests.unit.identity.signers import identity_options

KINDS = {
    "garbage": "ca_answer",
    "garbage_pem": "pem",
    "empty": "ca_answer",
    "chain_of_one": "ca_answer",
    "wrong_key": "key_mismatch",
    "expired": "expired",
    "not_yet_valid": "not_yet_valid",
    "unavailable": "ca_unavailable",
    "internal": "ca_error",
    "unauthenticated": "ca_denied",
    "permission_denied": "ca_denied",
    "unknown": "ca_error",
    "invalid_argument": "ca_error",
    "hang": "ca_timeout",
}


class Stand:
    def __init__(self, directory: Path, istiod: FakeIstiod) -> None:
        self.istiod = istiod
        self.token = directory / "token"
        self.token.write_text("the-token-of-this-workload")
        address = HostPort.parse(istiod.address)
        ca = CaOptions(address, False, ISTIOD_NAME, istiod.root_file, None, "Kubernetes", "", ())
        self.options = identity_options(directory, ca=ca, token=self.token)
        self.log, self.account, self.clock = RecordedLog(), Account(), SystemClock()
        self.attempt_s = 5.0
        self.workload: Workload

    def _note_attempt(self, problem: str) -> None:
        self.workload.note_attempt(problem)

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            tokens = Tokens(lambda: token_file(self.token), self.log.scope, self.clock)
            arguments = (tokens, self.account, self.log.scope, self.clock, self._note_attempt, self.attempt_s)
            assert self.options.ca is not None
            ca = self.options.ca
            signer = IstiodCa(lambda: ca, *arguments)
            with ThreadPoolExecutor(2) as executor:
                seams = (executor, self.account, self.log.scope, self.clock, lambda: None)
                self.workload = Workload(self.options, signer, *seams)
                task = asyncio.create_task(self.workload.run())
                try:
                    await scenario()
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

        asyncio.run(main())
        secret = self.workload.default.secret
        confide(secret.key if secret is not None else b"")
        assert found_in("\n".join(self.log.lines)) == []


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.setattr(ca_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(workload_module, "FIRST_RETRY_S", 0.01)
    with running(FakeIstiod(tmp_path)) as istiod:
        yield Stand(tmp_path, istiod)


@pytest.mark.parametrize("fault", KINDS)
def test_no_fault_of_the_ca_is_taken_for_a_certificate_and_its_end_ends_it(stand: Stand, fault: str) -> None:
    stand.istiod.fault = fault
    if fault == "hang":
        stand.attempt_s = 0.1

    async def scenario() -> None:
        workload = stand.workload
        await eventually_async(lambda: stand.account.failures)
        assert set(stand.account.failures) == {KINDS[fault]}
        assert (workload.default.secret, workload.roots.secret, stand.account.renewals) == (None, None, 0)
        assert workload.last_error == workload.default.problem == workload.roots.problem
        stand.istiod.fault = None
        await eventually_async(lambda: stand.account.renewals)
        secret = workload.default.secret
        assert secret is not None and workload.default.problem is None
        assert secret.chain.decode() == stand.istiod.issued[-1] + stand.istiod.root_pem
        check_pair(secret.chain, secret.key, "it", stand.clock.wall())

    stand.run(scenario)
    assert len([line for line in stand.log.lines if line.startswith("error ")]) == 1


def test_a_fault_later_on_leaves_the_certificate_in_use(stand: Stand) -> None:
    async def scenario() -> None:
        await eventually_async(lambda: stand.account.renewals)
        first = stand.workload.default.secret
        for fault in ("wrong_key", "expired", "garbage"):
            count = sum(stand.account.failures.values())
            stand.istiod.fault = fault
            stand.workload.renew()
            await eventually_async(lambda count=count: sum(stand.account.failures.values()) > count)  # type: ignore[misc]
            assert stand.workload.default.secret is first

    stand.run(scenario)


def test_a_new_root_comes_with_the_next_renewal(stand: Stand) -> None:
    async def scenario() -> None:
        await eventually_async(lambda: stand.account.renewals)
        stand.istiod.rotate_root()
        stand.workload.renew()
        await eventually_async(lambda: stand.account.renewals == 2)
        roots = stand.workload.roots.secret
        assert roots is not None and roots.roots == stand.istiod.root_pem.strip().encode()

    stand.run(scenario)


def test_a_virtual_machine_begins_with_its_provisioned_certificate(stand: Stand, tmp_path: Path) -> None:
    stand.istiod.provision(tmp_path / "prov", "spiffe://cluster.local/ns/vm/sa/vm")
    assert stand.options.ca is not None
    ca = stand.options.ca._replace(client=Files.of_directory(tmp_path / "prov"))
    stand.options = stand.options._replace(ca=ca)
    stand.token.unlink()

    async def scenario() -> None:
        await eventually_async(lambda: stand.account.renewals)

    stand.run(scenario)
    (request,) = stand.istiod.requests
    assert (request.peer_identity, request.token) == ("spiffe://cluster.local/ns/vm/sa/vm", None)
