"""istiod as far as a sidecar needs it: a CA that speaks its protocol, and ADS (`fake_ads`), with switches for faults.

gRPC's synchronous server, so it runs in any test or benchmark. gRPC for Python can require a client certificate or not
ask for one, and istiod does neither: it asks, and takes a token as well. So `_TlsFront` ends TLS.
"""

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes

from tests.support.authority import Authority, Pair
from tests.support.confidential import confide
from tests.support.described import ISTIO_CA
from tests.support.fake_ads import FakeAds
from tests.support.ports import free_port

SERVICE, METHOD = "istio.v1.auth.IstioCertificateService", "CreateCertificate"
SERVER_NAMES = ("istiod.istio-system.svc", "localhost")
HOST = "127.0.0.1"
THREADS = 128
"""How many requests can hang, and ADS streams be open, at once. A thread is made when it is needed."""
_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]

_CODES = {
    code.name.lower(): code
    for code in grpc.StatusCode
    if code.name in "UNAVAILABLE UNAUTHENTICATED PERMISSION_DENIED INTERNAL UNKNOWN INVALID_ARGUMENT".split()
}
FAULTS = frozenset("hang garbage garbage_pem empty chain_of_one wrong_key expired not_yet_valid".split() + list(_CODES))


class CsrRequest(NamedTuple):
    """One call as it came; headers by name (lower case), `peer_identity` of a client's certificate."""

    csr: str
    validity_s: int
    cert_signer: str
    metadata: dict[str, str]
    token: str | None
    peer_identity: str

    def __repr__(self) -> str:
        return f"CsrRequest(validity_s={self.validity_s})"  # pytest would print the token


class FakeIstiod:
    def __init__(self, directory: Path, *, is_plaintext: bool = False, port: int = 0) -> None:
        self._directory, self._is_plaintext = directory, is_plaintext
        self._port = port or free_port()
        self._lock = threading.Lock()
        self._fault: str | None = None
        self.fault_count: int | None = None
        """How many requests the fault hits before it clears itself; None: until it is cleared."""
        self.lifetime_s: float | None = None
        """Of the certificates, instead of what was asked for."""
        self.requires_token: str | None = None
        """UNAUTHENTICATED for every other one, and every ADS stream without it."""
        self.client_ca: str | None = None
        """PEM of the roots that clients' certificates are checked by, from the next start on; None: every own root."""
        self.shortest_ping_s = 15.0
        """As istiod: clients that keep their connection alive more often are cut off. From the next start on."""
        self.requests: list[CsrRequest] = []
        self.issued: list[str] = []
        """PEM of the leafs given out."""
        self._authority = Authority("fake istiod 1")
        self._roots = [self._authority.pem]
        self.root_file = directory / "fake-istiod-root.pem"
        self.root_file.write_text(self.root_pem)
        self._server: grpc.Server | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._front: _TlsFront | None = None
        self._is_stopping = threading.Event()
        self.ads = FakeAds(lambda: self.requires_token, self._identity_of)

    @property
    def address(self) -> str:
        return f"localhost:{self._port}"

    @property
    def root_pem(self) -> str:
        return self._authority.pem

    @property
    def fault(self) -> str | None:
        return self._fault

    @fault.setter
    def fault(self, fault: str | None) -> None:
        assert fault is None or fault in FAULTS, fault
        self._fault = fault

    def handlers(self) -> Any:
        """Of the CA, for a grpc.Server."""
        handler: Any = grpc.unary_unary_rpc_method_handler(self._create_certificate)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})

    def start(self) -> "FakeIstiod":
        """On the same port each time."""
        assert self._server is None, "it runs already"
        self.root_file.write_text(self.root_pem)
        self._is_stopping = threading.Event()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fake istiod")
        pings = ("grpc.http2.min_ping_interval_without_data_ms", int(self.shortest_ping_s * 1000))
        self._server = grpc.server(self._pool, options=[*_OPTIONS, pings])
        self._server.add_generic_rpc_handlers([self.handlers(), self.ads.handlers()])
        own_port = self._server.add_insecure_port(f"{HOST}:{self._port if self._is_plaintext else 0}")
        self._server.start()
        if not self._is_plaintext:
            self._front = _TlsFront(self._tls(), self._port, own_port)
        return self

    def stop(self) -> None:
        """Cuts every connection. May be called when it does not run."""
        self._is_stopping.set()
        if self._front is not None:
            self._front.stop()
        if self._server is not None and self._pool is not None:
            is_stopped = self._server.stop(None)
            self.ads.end_now()
            is_stopped.wait()
            self._pool.shutdown()
            self.ads.join()
        self._front = self._server = self._pool = None

    def rotate_root(self) -> None:
        """New certificates come from a new root at once, the server's own from its next start on. Until then the root
        file holds both."""
        before = self.root_pem
        self._authority = Authority(f"fake istiod {len(self._roots) + 1}")
        self._roots.append(self.root_pem)
        self.root_file.write_text(self.root_pem + (before if self._server is not None else ""))

    def provision(self, directory: Path, identity: str, lifetime_s: float = 3600.0) -> Pair:
        """What a VM is set up with: key.pem, cert-chain.pem and root-cert.pem of a certificate by this CA."""
        pair = self._authority.pair(identity, lifetime_s=lifetime_s)
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in (("key", pair.key), ("cert-chain", pair.chain), ("root-cert", self.root_pem)):
            (directory / f"{name}.pem").write_text(content)
        return pair

    def _tls(self) -> ssl.SSLContext:
        pair = self._authority.pair(*SERVER_NAMES)
        file = self._directory / "fake-istiod-server.pem"
        file.write_text(pair.key + pair.chain + self.root_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.set_alpn_protocols(["h2"])
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.client_ca or "".join(self._roots))
        return context

    # One call

    def _create_certificate(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            token = self._note(body, context)
            fault = self._next_fault()
        if fault == "hang":
            self._hang(context)
        if fault in _CODES:
            context.abort(_CODES[fault], f"fake istiod: {fault}")
        if self.requires_token is not None and token != self.requires_token:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "fake istiod: another token is required")
        if fault == "garbage":
            return b"\xff\xff\xff no message"
        answer = ISTIO_CA["IstioCertificateResponse"](cert_chain=self._chain(self.requests[-1], fault))
        encoded: bytes = answer.SerializeToString()
        return encoded

    def _note(self, body: bytes, context: grpc.ServicerContext) -> str | None:
        request = ISTIO_CA["IstioCertificateRequest"].FromString(body)
        headers = {name: str(value) for name, value in context.invocation_metadata()}
        credentials = headers.get("authorization", "")
        token = credentials.removeprefix("Bearer ") if credentials.startswith("Bearer ") else None
        if token:
            confide(token)
        peer = self._identity_of(context.peer())
        signer = request.metadata.fields["CertSigner"].string_value
        self.requests.append(CsrRequest(request.csr, request.validity_duration, signer, headers, token, peer))
        return token

    def _identity_of(self, peer: str) -> str:
        front = self._front
        return "" if front is None else front.identity_of(peer)

    def _next_fault(self) -> str | None:
        fault = self._fault
        if fault is not None and self.fault_count is not None:
            self.fault_count -= 1
            if self.fault_count <= 0:
                self._fault = self.fault_count = None
        return fault

    def _hang(self, context: grpc.ServicerContext) -> None:
        """Until the client gives up, or we do."""
        over = self._is_stopping
        gone = threading.Event()
        if context.add_callback(gone.set):
            while not (gone.is_set() or over.wait(0.02)):
                pass
        context.abort(grpc.StatusCode.CANCELLED, "fake istiod: it hung")

    def _chain(self, request: CsrRequest, fault: str | None) -> list[str]:
        if fault == "garbage_pem":
            return ["no certificate", "and no root"]
        if fault == "empty":
            return []
        csr = x509.load_pem_x509_csr(request.csr.encode())
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key: Any = csr.public_key()
        if fault == "wrong_key":
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        with self._lock:
            authority = self._authority
        leaf = self._leaf(authority, key, names, self.lifetime_s or request.validity_s, fault)
        self.issued.append(leaf)
        return [leaf] if fault == "chain_of_one" else [leaf, authority.pem]

    def _leaf(
        self,
        authority: Authority,
        key: CertificateIssuerPublicKeyTypes,
        names: x509.SubjectAlternativeName,
        lifetime_s: float,
        fault: str | None,
    ) -> str:
        now = time.time()
        if fault == "expired":
            return authority.sign(key, names, lifetime_s=3600, not_before=now - 7200)
        if fault == "not_yet_valid":
            return authority.sign(key, names, lifetime_s=3600, not_before=now + 3600)
        return authority.sign(key, names, lifetime_s=lifetime_s)


class _TlsFront:
    """Ends TLS in an event loop of its own thread, and knows whose connection the server sees."""

    def __init__(self, context: ssl.SSLContext, port: int, server_port: int) -> None:
        self._context, self._port, self._server_port = context, port, server_port
        self._identities: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._is_ready = threading.Event()
        self._problems: list[OSError] = []
        self._thread = threading.Thread(target=self._run, name="fake istiod's TLS")
        self._thread.start()
        self._is_ready.wait()
        for problem in self._problems:
            self._thread.join()
            raise problem

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def identity_of(self, peer: str) -> str:
        """`peer` as gRPC names it: ipv4:HOST:PORT."""
        return self._identities.get(peer.rpartition(":")[2], "")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        joined: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            joined.add(task)
            try:
                await self._join(reader, writer)
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                joined.discard(task)
                writer.transport.abort()

        try:
            server = await asyncio.start_server(accept, HOST, self._port, ssl=self._context)
        except OSError as error:
            self._problems.append(error)
            return
        finally:
            self._is_ready.set()
        await self._stop.wait()
        server.close()
        for task in list(joined):
            task.cancel()
        await asyncio.gather(*joined, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(HOST, self._server_port)
        port = str(behind_writer.get_extra_info("sockname")[1])
        self._identities[port] = _identity(writer.get_extra_info("peercert"))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, behind_writer))
                tasks.create_task(_copy(behind_reader, writer))
        except* OSError:
            pass
        finally:
            behind_writer.transport.abort()
            self._identities.pop(port, None)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError  # one end is gone: so is the other


def _identity(certificate: dict[str, Any] | None) -> str:
    """The first URI of a client's certificate, or its first other name."""
    names = sorted((certificate or {}).get("subjectAltName", ()), key=lambda name: name[0] != "URI")
    return str(names[0][1]) if names else "nameless" if certificate else ""


@contextmanager
def running(istiod: FakeIstiod) -> Iterator[FakeIstiod]:
    """Started, and stopped in the end."""
    try:
        yield istiod.start()
    finally:
        istiod.stop()
