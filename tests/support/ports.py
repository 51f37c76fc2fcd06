"""Ports for tests: what the kernel says is free now."""

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on. Another process may take it before you do, so bind it soon."""
    return free_ports(1, host)[0]


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Different free ports: all are held until the last one is known."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = [socket.socket(family) for _ in range(count)]
    try:
        for each in held:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()
