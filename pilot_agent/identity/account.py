"""What the identity's parts have counted and seen last: for metrics, `/debug/certs` and `status`. Data only."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Account:
    """Counters only grow. `outgoing_ms` is a sum, as Istio's `outgoing_latency`; times are wall-clock seconds."""

    csr_requests: int = 0
    csr_failures: int = 0
    csr_retries: int = 0
    csr_ms: float = 0.0
    renewals: int = 0
    """Certificates issued and taken into use."""
    failures: Counter[str] = field(default_factory=Counter)
    """What went wrong, by kind (errors.IDENTITY_ERRORS): calls to the CA, files, outputs."""
    file_failures: int = 0
    """Looks at certificate files that found something new and unusable."""
    file_changes: int = 0
    """Looks at certificate files that found something new and good."""
    checked_at: float | None = None
    """When certificate files were last looked at; None where there are none to look at."""
    outputs: int = 0
    """Times a set was written to OUTPUT_CERTS."""
