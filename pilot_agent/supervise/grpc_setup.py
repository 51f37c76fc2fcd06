"""What gRPC's core must be told before it is imported. Everything that imports grpc in the agent comes past here."""

import os
from collections.abc import Mapping


def set_up_grpc(envoy_variables: Mapping[str, str]) -> None:
    """Set gRPC's variables in our own environment; Envoy gets its own set. Once grpc is imported they are read.

    - Its handlers around fork() are off: with them, 105 of 400 children spawned beside a busy stream died by SIGABRT or
      SIGSEGV before they could execute Envoy, without them none did (measured with grpcio 1.85.3).
    - Its own words on standard error are no log lines.
    - What COMPLIANCE_POLICY allows of cipher suites holds for us as for Envoy.
    """
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    suites = envoy_variables.get("GRPC_SSL_CIPHER_SUITES")
    if suites is not None:
        os.environ["GRPC_SSL_CIPHER_SUITES"] = suites
