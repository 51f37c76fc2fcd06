"""The child of the agent that works with keys and certificates: calls come in on descriptor 0, answers go out on 1.

Each call has a thread, since a key of 4096 bits takes seconds, and a changed file must not wait for it. It ends when
its input does: that is also how an agent that was killed leaves nothing behind.
"""

import marshal
import os
import resource
import threading
from collections.abc import Callable
from typing import Any

LENGTH_BYTES = 4
LONGEST = 64 * 1024 * 1024
"""Of a message. Files are a MiB at most, and there are three in the largest call."""


def packed(message: tuple[Any, ...]) -> bytes:
    """Behind its length. Plain data only: what reads other people's certificates can't hand the agent an object."""
    body = marshal.dumps(message)
    return len(body).to_bytes(LENGTH_BYTES) + body


def read_message(read: Callable[[int], bytes]) -> tuple[Any, ...] | None:
    """The next message; None at the end. Raises OSError, and EOFError or ValueError for what is no message."""
    length = _read_exactly(read, LENGTH_BYTES)
    if length is None:
        return None
    size = int.from_bytes(length)
    if size > LONGEST:
        raise ValueError(f"a message of {size} bytes")
    body = _read_exactly(read, size)
    if body is None:
        raise EOFError("a message is cut off")
    message: tuple[Any, ...] = marshal.loads(body)  # noqa: S302 - between the two halves of one program
    return message


def _read_exactly(read: Callable[[int], bytes], size: int) -> bytes | None:
    parts = []
    while size:
        part = read(size)
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def serve() -> None:
    """Never returns."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it may hold keys
    writing = threading.Lock()
    threading.Thread(target=_import, daemon=True).start()
    try:
        while (call := read_message(lambda size: os.read(0, size))) is not None:
            threading.Thread(target=_answer, args=(call, writing), daemon=True).start()
    finally:
        os._exit(0)  # without waiting for a key that nobody wants any more


def _import() -> None:
    """What the first call will need: it comes when the agent has something to check."""
    try:
        # In this order: with the first the longest call can begin, and the second comes while a key is made.
        import cryptography.hazmat.primitives.asymmetric.rsa
        import cryptography.x509  # noqa: F401
    except ImportError:
        pass  # the calls will say so


def _answer(call: tuple[Any, ...], writing: threading.Lock) -> None:
    number, operation, arguments = call
    answer = packed((number, *result_of(operation, arguments)))
    with writing:
        while answer:
            answer = answer[os.write(1, answer) :]


def result_of(operation: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """Nothing and the result, as plain data; or the kind and the text of an IdentityError."""
    from pilot_agent.errors import IdentityError
    from pilot_agent.identity.crypto import IN_PROCESS, OPERATIONS
    from pilot_agent.identity.keys import KeySpec

    try:
        if operation not in OPERATIONS:
            raise ValueError("there is no such operation")
        if operation == "make_request":
            arguments = (KeySpec(*arguments[0]), *arguments[1:])
        result = getattr(IN_PROCESS, operation)(*arguments)
    except IdentityError as error:
        return error.kind, str(error)
    except Exception as error:  # noqa: BLE001 - a bug in one call must not end the others
        return "internal", f"{operation} failed: {error!r}"
    return "", _plain(result)


def _plain(result: Any) -> Any:
    """Named tuples without their names."""
    return tuple(map(_plain, result)) if isinstance(result, tuple) else result
