"""`pilot-agent request`: one HTTP request to the agent's or Envoy's local ports; the client is `http_call`'s."""

import sys

from pilot_agent.commands.flags import log_options
from pilot_agent.commands.http_call import Call, answer_text
from pilot_agent.commands.parsing import Parsed
from pilot_agent.errors import EXIT_OK, AgentError, UsageError
from pilot_agent.log import Log

PORTS = (15000, 15004, 15020, 15021)
TIMEOUT_SECONDS = 60.0
_ERROR_BODY_BYTES = 64 * 1024
_CHUNK_BYTES = 256 * 1024


def run(parsed: Parsed) -> int:
    """Print the answer's body. Raises AgentError for a status above 399, but for 404, as Istio's agent does."""
    log = Log(log_options(parsed.values)).scope()
    port = parsed.values["debug_port"]
    if port not in PORTS:
        allowed = " ".join(map(str, PORTS))
        raise UsageError(f"debug port {port} is not one of [{allowed}]: use a port of the agent or of Envoy")
    method, path, *bodies = parsed.words
    url = f"http://localhost:{port}/{path.removeprefix('/')}"
    log.debug(f"{method} {url}")
    body = bodies[0].encode("utf-8", "surrogateescape") if bodies else None
    with Call(method, url, body).answered(TIMEOUT_SECONDS) as answer:
        if answer.status > 399 and answer.status != 404:
            text = answer_text(answer, _ERROR_BODY_BYTES)
            raise AgentError(f"received unsuccessful status code {answer.status}: {text}")
        # Passed on as it comes: a config_dump of a large mesh is hundreds of megabytes.
        while chunk := answer.read(_CHUNK_BYTES):
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.write(b"\n")
    return EXIT_OK
