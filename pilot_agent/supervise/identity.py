"""The identity under the event loop: secret manager, CA client and SDS wired together, and what others ask of them.

The parts are `identity`'s and `sds`'; this is the one place where they meet settings, files, watcher and readiness.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pilot_agent.clock import Deadline
from pilot_agent.errors import IDENTITY_ERRORS, IdentityError
from pilot_agent.files.publish import publish, publish_all
from pilot_agent.identity.account import Account
from pilot_agent.identity.ca import IstiodCa, Signer
from pilot_agent.identity.certificate import stamp
from pilot_agent.identity.options import IdentityOptions
from pilot_agent.identity.output import Output
from pilot_agent.identity.secrets import Seams, Secrets
from pilot_agent.identity.slots import Slot
from pilot_agent.identity.tokens import GCE_LOOK_EVERY_S, Tokens, gce_token, token_file
from pilot_agent.metrics.own import Histogram, Values
from pilot_agent.sds.account import SEND_SECONDS, SdsAccount
from pilot_agent.sds.resources import SECRET_TYPE
from pilot_agent.supervise.desired import Desired
from pilot_agent.supervise.grpc_setup import set_up_grpc
from pilot_agent.supervise.opening import FILE_SECRETS, OpenedIdentity
from pilot_agent.supervise.parts import Parts
from pilot_agent.supervise.prepare import Prepared
from pilot_agent.supervise.reaper import Reaper

MOCK_TOKEN = "test_token"  # noqa: S105 - Istio's, of a fetcher that is for tests
GCE_WITHIN_S = 5.0


class Identity:
    """Made under the event loop. `desired` gives what is desired now; `watch_again` is for the watcher of files."""

    def __init__(
        self,
        prepared: Prepared,
        opened: OpenedIdentity,
        desired: Callable[[], Desired],
        watch_again: Callable[[], None],
        watcher_failures: Callable[[], int],
    ) -> None:
        assert opened.executor is not None and opened.crypto is not None
        self._prepared, self._opened, self._desired = prepared, opened, desired
        self._watcher_failures = watcher_failures
        self._executor: ThreadPoolExecutor = opened.executor
        self._crypto = opened.crypto
        self.account, self.sds_account = Account(), SdsAccount()
        options = prepared.desired.identity
        self.tokens = None if prepared.desired.settings.is_local else self._make_tokens(options)
        """What the CA and istiod know us by."""
        asked = self.tokens if options.ca is not None else None  # else only istiod's, which looks at it by itself
        output = Output(options.output, options.output_mode, publish_all) if options.output is not None else None
        log, clock = prepared.log.scope("cache"), prepared.clock
        seams = Seams(self._executor, log, clock, asked, output, watch_again, self._crypto)
        request = asyncio.wrap_future(opened.request) if opened.request is not None else None
        self.secrets = Secrets(options, self._signer(options), self.account, seams, request)

    def adopt(self, reaper: Reaper) -> None:
        """Before any signal is handled, as for Envoy."""
        self._crypto.owned_by(reaper)

    def start(self, parts: Parts) -> None:
        parts.start("identity", self.secrets.run)
        if self._opened.listener is not None:
            parts.start("SDS server", self._serve)
        files = self._opened.files
        if files is not None:
            slots: dict[str, Slot] = {name: self.secrets.slot(name) for name in FILE_SECRETS}
            for name in FILE_SECRETS:
                files.serve(slots[name])

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        server_class = await loop.run_in_executor(None, self._import_server)
        listener = self._opened.listener
        assert listener is not None
        log = self._prepared.log.scope("sds")
        server = server_class(listener, self.secrets, lambda: self._desired().identity.provider, self.sds_account, log)
        await server.run()

    def _import_server(self) -> Any:
        """In a thread: 40 ms, in which probes are answered."""
        set_up_grpc(self._prepared.desired.launch.variables)
        from pilot_agent.sds.server import SdsServer

        return SdsServer

    def close(self) -> None:
        self._crypto.close()  # first, for a thread may be waiting for it
        self._executor.shutdown(wait=False, cancel_futures=True)

    # Where certificates come from

    def _signer(self, options: IdentityOptions) -> Signer | None:
        if options.local_ca is not None:
            from pilot_agent.identity.local_ca import LocalCa

            log = self._prepared.log.scope("ca")
            return LocalCa(options.local_ca, self._prepared.clock, log.warn, self._executor, self._crypto)
        if options.ca is None:
            return None
        assert self.tokens is not None
        set_up_grpc(self._prepared.desired.launch.variables)
        log = self._prepared.log.scope("citadelclient")
        clock = self._prepared.clock
        return IstiodCa(self._ca_now, self.tokens, self.account, log, clock, self._note_attempt, crypto=self._crypto)

    def _ca_now(self) -> Any:
        """discoveryAddress may have changed since."""
        return self._desired().identity.ca or self._prepared.desired.identity.ca

    def _note_attempt(self, problem: str) -> None:
        self.secrets.workload.note_attempt(problem)

    def _make_tokens(self, options: IdentityOptions) -> Tokens:
        log = self._prepared.log.scope("gcecred" if options.fetcher == "GoogleComputeEngine" else "citadelclient")
        if options.fetcher == "Mock":
            return Tokens(lambda: MOCK_TOKEN, log, self._prepared.clock)
        if options.fetcher == "GoogleComputeEngine":
            audience, path = options.trust_domain, options.token
            read = lambda: gce_token(self._ask_google, audience, path, publish)  # noqa: E731
            return Tokens(read, log, self._prepared.clock, is_required=True, look_every_s=GCE_LOOK_EVERY_S)
        return Tokens(lambda: token_file(options.token), log, self._prepared.clock)

    def _ask_google(self, path: str) -> str:
        from pilot_agent.cloud.gcp import HEADERS
        from pilot_agent.cloud.platform import LINK_LOCAL
        from pilot_agent.cloud.server import MetadataServer, NoAnswer

        host = self._prepared.desired.settings.environment.text("GCE_METADATA_HOST")
        server = f"http://{host}" if host else LINK_LOCAL
        deadline = Deadline.after(GCE_WITHIN_S, self._prepared.clock)
        try:
            return MetadataServer(server, deadline, [], HEADERS, GCE_WITHIN_S).ask("GET", path)
        except NoAnswer as error:
            raise IdentityError("token", f"Google's metadata server {server}: {error}") from None

    # What others ask

    def paths(self) -> list[Path]:
        return self.secrets.paths()

    def certs(self) -> Mapping[str, Any]:
        """The answer of /debug/certs."""
        token = self.tokens.state if self.tokens is not None else None
        account, output = self.account, self._prepared.desired.identity.output
        return {
            "certificates": self.secrets.described(),
            "token": {
                "expires_at": stamp(token.expires_at) if token.expires_at is not None else None,
                "problem": token.problem,
            }
            if token is not None
            else None,
            "last_error": self.secrets.workload.last_error,
            "renewals": account.renewals,
            "failures": dict(account.failures),
            "output": {"directory": str(output), "problem": self.secrets.output_problem} if output else None,
            "sds": {"streams": self.sds_account.streams, "rejects": self.sds_account.rejects},
        }

    def facts(self) -> Mapping[str, Values]:
        """For the metrics, by their names without prefix."""
        account, wall = self.account, self._prepared.clock.wall()
        workload, token = self.secrets.workload, self.tokens.state if self.tokens is not None else None
        not_after = workload.expires_at
        expires = {"default": not_after} if not_after is not None else {}
        return {
            "num_outgoing_requests": {"csr": account.csr_requests},
            "num_failed_outgoing_requests": {"csr": account.csr_failures},
            "num_outgoing_retries": {"csr": account.csr_retries},
            "outgoing_latency": {"csr": account.csr_ms},
            "cert_expiry_seconds": {name: at - wall for name, at in expires.items() if workload.origin == "ca"},
            "cert_not_after_timestamp_seconds": expires,
            "cert_renewals_total": account.renewals,
            "cert_failures_total": dict.fromkeys(IDENTITY_ERRORS, 0) | account.failures,
            "cert_file_changes_total": account.file_changes,
            "cert_files_checked_seconds": None if account.checked_at is None else max(0.0, wall - account.checked_at),
            "token_expiry_seconds": token.expires_at - wall if token is not None and token.expires_at else None,
            "num_file_watcher_failures_total": self._watcher_failures(),
            "num_file_secret_failures_total": account.file_failures,
            **_sds_facts(self.sds_account),
        }


def _sds_facts(sds: SdsAccount) -> dict[str, Values]:
    return {
        "sds_streams": sds.streams,
        "sds_pushes_total": sds.pushes,
        "pilot_xds_recv_max": sds.largest_request,
        "pilot_total_xds_rejects": sds.rejects,
        "pilot_xds_expired_nonce": {SECRET_TYPE: sds.expired_nonces[SECRET_TYPE]},
        "pilot_xds_write_timeout": sds.write_timeouts,
        "pilot_total_xds_internal_errors": sds.internal_errors,
        "pilot_xds_send_time": Histogram(SEND_SECONDS, tuple(sds.send_counts), sds.send_seconds),
    }
