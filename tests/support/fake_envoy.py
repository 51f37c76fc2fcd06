#!/usr/bin/env -S python3 -I -S
"""Pretends to be Envoy for tests of processes: takes its arguments, answers its admin interface, misbehaves on order.

Owns no expectation: it writes down what happened to it, one JSON object a line, and tests read that. Run as a program
by the agent, never imported; `tests/support/fakes.py` is the Python side. Standard library, no site-packages: it starts
in the time of a bare interpreter, as Envoy nearly does.

Environment
  FAKE_ENVOY_RECORD    file to append events to: start, request (all but GET), signal, takeover, exit
  FAKE_ENVOY_SWITCHES  JSON file with the switches; or a list of them, of which each start takes the first off
                       (the last one stays). Validation runs do not take one.
  FAKE_ENVOY           the same as JSON text, without the taking off; the file wins

Switches
  stderr [lines]       written at the start
  exit_code N          exit at once with N, before the admin port is opened
  crash_after S        seconds after the start, end with crash_code (default 1) or crash_signal
  kill_self N          end by signal N at once
  fail_epochs [1,..]   restart epochs that exit 1 at once, as a child that can't take over does
  invalid TEXT         --mode validate fails, saying TEXT
  extensions [names]   what --mode init_only lists as built in
  slow_ready S         seconds during which /ready says 503 and the stats that nothing was received
  never_ready true     the same for ever
  hang_after S         seconds after which the admin port accepts but does not answer (0: from the start)
  ignore_term true     SIGTERM does nothing
  term_code N          exit code at SIGTERM; read then
  orphans N            at the start, make N grandchildren that end without a parent
  active_connections N downstream connections of listener `listener_name` (default 0.0.0.0_8080); read at each request
  stats {name: value}  more stats, or other values; read at each request
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import socket
import sys
import time

TYPE_CHECKING = False  # importing `typing` would cost as much as the rest
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

STARTED = time.monotonic()
SHARED_MEMORY = "/dev/shm/envoy_shared_memory_{}0"
REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
WITHOUT_VALUE = {
    "--use-dynamic-base-id",
    "--disable-hot-restart",
    "--allow-unknown-static-fields",
    "--reject-unknown-dynamic-fields",
    "--skip-deprecated-logs",
    "--enable-core-dump",
    "--version",
}


def parsed(words: list[str]) -> dict[str, Any]:
    """Flags as a dictionary without their dashes; flags without a value are True."""
    options: dict[str, Any] = {}
    index = 0
    while index < len(words):
        name, equals, given = words[index].partition("=")
        value: str | bool = given
        if name in WITHOUT_VALUE:
            value = True
        elif not equals:
            index += 1
            value = words[index] if index < len(words) else ""
        options[name.lstrip("-")] = value
        index += 1
    return options


def record(event: str, **facts: object) -> None:
    path = os.environ.get("FAKE_ENVOY_RECORD")
    if not path:
        return
    line = json.dumps({"event": event, "pid": os.getpid(), "at": time.monotonic(), **facts}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_switches(take: bool = False) -> dict[str, Any]:
    path = os.environ.get("FAKE_ENVOY_SWITCHES", "")
    try:
        with open(path) as file:
            switches = json.load(file)
    except OSError:
        switches = json.loads(os.environ.get("FAKE_ENVOY") or "{}")
    if not isinstance(switches, list):
        return dict(switches)
    if take and len(switches) > 1:
        with open(f"{path}.new", "w") as file:
            json.dump(switches[1:], file)
        os.replace(f"{path}.new", path)
    return dict(switches[0]) if switches else {}


def log(level: str, text: str) -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".000000Z"
    sys.stderr.write(f"{moment}\t{level}\tenvoy main external/envoy/source/server/server.cc:420\t{text}\tthread=1\n")
    sys.stderr.flush()


def leave(code: int, reason: str) -> NoReturn:
    record("exit", code=code, reason=reason)
    sys.stderr.flush()
    os._exit(code)


def kill_self(number: int) -> None:
    record("exit", signal=number, reason="kill_self")
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    time.sleep(60)


class FakeEnvoy:
    def __init__(self, options: dict[str, Any], switches: dict[str, Any], document: dict[str, Any]) -> None:
        self.options, self.switches = options, switches
        self.epoch = int(options.get("restart-epoch", 0))
        self.base_id: int | None = None
        self.ends_at: float | None = None
        self.is_draining = self.is_replaced = False
        address = document.get("admin", {}).get("address", {}).get("socket_address", {})
        self.admin = (address.get("address", "127.0.0.1"), int(address.get("port_value", 15000)))

    @property
    def age(self) -> float:
        return time.monotonic() - STARTED

    @property
    def is_ready(self) -> bool:
        return not self.switches.get("never_ready") and self.age >= float(self.switches.get("slow_ready", 0))

    def choose_base_id(self) -> None:
        if self.options.get("disable-hot-restart"):
            return
        self.base_id = int(self.options.get("base-id", 0))
        if self.options.get("use-dynamic-base-id"):
            self.base_id = int.from_bytes(os.urandom(3), "big") + 1
        try:  # as Envoy: 104 bytes that it never removes
            with open(SHARED_MEMORY.format(self.base_id), "ab") as file:
                file.truncate(104)
        except OSError:
            leave(1, "no shared memory")
        path = self.options.get("base-id-path")
        if path:
            with open(path, "w") as file:
                file.write(str(self.base_id))

    def listen(self) -> None:
        family = socket.AF_INET6 if ":" in self.admin[0] else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Two epochs hold the port for the moment of a takeover.
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self.listener.bind(self.admin)
        except OSError as error:
            log("critical", f"cannot bind '{self.admin[0]}:{self.admin[1]}': {error.strerror}")
            leave(1, "admin port in use")
        self.listener.listen(128)

    def take_over(self) -> None:
        """Tell the epoch before to let go of the admin port, to drain, and to end as its parent-shutdown time says."""
        record_path = os.environ.get("FAKE_ENVOY_RECORD")
        if self.base_id is None or not record_path:
            return
        holder = f"{record_path}.{self.base_id}.pid"
        if self.epoch > 0:
            try:
                with open(holder) as file:
                    os.kill(int(file.read()), signal.SIGUSR2)
            except (OSError, ValueError):
                log("critical", "unable to connect to the parent of the hot restart")
                leave(1, "no parent to take over from")
        with open(holder, "w") as file:
            file.write(str(os.getpid()))

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        record("signal", signal=number)
        if number == signal.SIGUSR2:
            self.is_replaced = self.is_draining = True
            self.listener.close()
            self.ends_at = time.monotonic() + float(self.options.get("parent-shutdown-time-s", 900))
            record("takeover")
        elif number == signal.SIGTERM and not self.switches.get("ignore_term"):
            leave(int(read_switches().get("term_code", 0)), "SIGTERM")
        elif number == signal.SIGINT:
            leave(0, "SIGINT")

    def run(self) -> NoReturn:
        """Accept, until a switch, a signal or the next epoch ends it."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self.on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.take_over()
        crash_after = self.switches.get("crash_after")
        while True:
            now = time.monotonic()
            if crash_after is not None and now - STARTED >= crash_after:
                if self.switches.get("crash_signal"):
                    kill_self(self.switches["crash_signal"])
                leave(self.switches.get("crash_code", 1), "crash_after")
            if self.ends_at is not None and now >= self.ends_at:
                leave(0, "replaced")
            moments = [self.ends_at, None if crash_after is None else STARTED + crash_after]
            left = min((moment - now for moment in moments if moment is not None), default=3600.0)
            self.accept(max(0.001, left))

    def accept(self, left: float) -> None:
        if self.is_replaced:
            time.sleep(left)
            return
        try:
            self.listener.settimeout(left)
            connection, _ = self.listener.accept()
        except OSError:
            return  # the time is over, or the takeover closed it under us
        _thread.start_new_thread(self.serve, (connection,))

    def serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(60)
            data = b""
            while b"\r\n\r\n" not in data:
                chunk = connection.recv(65536)
                if not chunk:
                    return
                data += chunk
            hang_after = read_switches().get("hang_after", self.switches.get("hang_after"))
            if hang_after is not None and self.age >= hang_after:
                while connection.recv(65536):
                    pass
                return
            method, target, _ = data.split(b"\r\n", 1)[0].decode().split(" ", 2)
            if method != "GET":
                record("request", method=method, path=target)
            status, body = self.answer(method, target)
            head = f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: text/plain; charset=UTF-8\r\n"
            head += f"content-length: {len(body.encode())}\r\nconnection: close\r\nserver: envoy\r\n\r\n"
            connection.sendall(head.encode() + body.encode())
            if target == "/quitquitquit" and method == "POST":
                leave(0, "quitquitquit")
        except (OSError, ValueError):
            pass  # a client that went away or spoke nonsense
        finally:
            connection.close()

    def answer(self, method: str, target: str) -> tuple[int, str]:
        path, _, query = target.partition("?")
        if path in ("/drain_listeners", "/quitquitquit", "/healthcheck/fail", "/healthcheck/ok"):
            if method != "POST":
                return 405, f"Method {method} not allowed, POST required."
            self.is_draining |= path == "/drain_listeners"
            return 200, "OK\n"
        if path == "/ready":
            return (200, "LIVE\n") if self.is_ready else (503, "PRE_INITIALIZING\n")
        if path == "/server_info":
            return 200, json.dumps(self.server_info(), indent=1)
        if path == "/stats":
            return 200, self.stats(query)
        if path == "/stats/prometheus":
            return 200, self.prometheus()
        return 404, "invalid path. admin commands are:\n"

    @property
    def state(self) -> str:
        return "LIVE" if self.is_ready else "PRE_INITIALIZING"

    def server_info(self) -> dict[str, object]:
        options = {name.replace("-", "_"): value for name, value in self.options.items()}
        options["restart_epoch"], options["base_id"] = self.epoch, str(self.base_id or 0)
        return {
            "version": "fake/1.40.0/Clean/RELEASE/none",
            "state": self.state,
            "hot_restart_version": "disabled" if self.base_id is None else "11.104",
            "command_line_options": options,
            "uptime_current_epoch": f"{int(self.age)}s",
        }

    def values(self) -> dict[str, object]:
        live = read_switches()
        received = int(self.is_ready)
        connections = live.get("active_connections", self.switches.get("active_connections", 0))
        listener = live.get("listener_name", self.switches.get("listener_name", "0.0.0.0_8080"))
        return {
            "cluster_manager.cds.update_success": received,
            "cluster_manager.cds.update_rejected": 0,
            "listener_manager.lds.update_success": received,
            "listener_manager.lds.update_rejected": 0,
            "listener_manager.workers_started": received,
            f"listener.{listener}.downstream_cx_active": connections,
            f"listener.{listener}.worker_0.downstream_cx_active": connections,
            "listener.admin.downstream_cx_active": 1,
            "server.hot_restart_epoch": self.epoch,
            "server.live": received,
            "server.state": 0 if received else 2,
            "server.uptime": int(self.age),
            **live.get("stats", self.switches.get("stats", {})),
        }

    def stats(self, query: str) -> str:
        import re
        from urllib.parse import parse_qs

        asked = parse_qs(query, keep_blank_values=True)
        if asked.get("format", [""])[0] == "prometheus":
            return self.prometheus()
        wanted = re.compile(asked.get("filter", [""])[0])
        return "".join(f"{name}: {value}\n" for name, value in sorted(self.values().items()) if wanted.search(name))

    def prometheus(self) -> str:
        lines = []
        for name, value in sorted(self.values().items()):
            metric = "envoy_" + "".join(letter if letter.isalnum() else "_" for letter in name)
            lines.append(f"# TYPE {metric} gauge\n{metric}{{}} {value}\n")
        return "".join(lines)


def read_document(options: dict[str, Any]) -> dict[str, Any]:
    """The bootstrap as JSON; ends as Envoy does where there is none."""
    path = options.get("c") or options.get("config-path") or ""
    try:
        with open(path) as file:
            document = json.load(file)
    except (OSError, ValueError) as error:
        log("critical", f"error initializing configuration '{path}': {error}")
        leave(1, "bad configuration")
    if not isinstance(document, dict):
        log("critical", f"error initializing configuration '{path}': not an object")
        leave(1, "bad configuration")
    return document


def main() -> None:
    options = parsed(sys.argv[1:])
    if options.get("version"):
        print("\nenvoy  version: fake/1.40.0/Clean/RELEASE/none\n", flush=True)
        return
    if options.get("mode") == "init_only":
        log("info", "statically linked extensions:")
        for name in read_switches().get("extensions", ()):
            log("info", f"  envoy.bootstrap: {name}")
        return
    is_validation = options.get("mode") == "validate"
    switches = read_switches(take=not is_validation)
    document = read_document(options)
    if is_validation:
        record("validate", argv=sys.argv, env=dict(os.environ), ppid=os.getppid(), config=document)
        if switches.get("invalid"):
            log("critical", f"error initializing configuration '{options.get('c', '')}': {switches['invalid']}")
            leave(1, "invalid")
        print(f"configuration '{options.get('c', '')}' OK", flush=True)
        return
    envoy = FakeEnvoy(options, switches, document)
    if envoy.epoch not in switches.get("fail_epochs", ()) and "exit_code" not in switches:
        envoy.choose_base_id()
    record(
        "start",
        argv=sys.argv,
        env=dict(os.environ),
        ppid=os.getppid(),
        pgid=os.getpgrp(),
        uid=os.getuid(),
        epoch=envoy.epoch,
        base_id=envoy.base_id,
        config=document,
        switches=switches,
    )
    for line in switches.get("stderr", ()):
        sys.stderr.write(line + "\n")
    sys.stderr.flush()
    for _ in range(int(switches.get("orphans", 0))):
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.05)
            os._exit(0)
        os.wait()
    if envoy.epoch in switches.get("fail_epochs", ()):
        log("critical", "previous envoy process is still initializing")
        leave(1, "fail_epochs")
    if "exit_code" in switches:
        leave(switches["exit_code"], "exit_code")
    if "kill_self" in switches:
        kill_self(switches["kill_self"])
    envoy.listen()
    envoy.run()


if __name__ == "__main__":
    main()
