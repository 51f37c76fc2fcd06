"""The one error tree, and the exit code each branch ends the agent with (docs/exit-codes.md).

An `AgentError` is made for a person: its text says what happened, where, the value seen and what to do, in one line.
Everything that may end a command is one of these; anything else that escapes is a bug and says so.
"""

EXIT_OK = 0
"""Asked to stop, and stopped."""

EXIT_SETTINGS = 255
"""A settings error at start, or a failed subcommand (Istio's agent uses the same code)."""

EXIT_SIGNAL_BASE = 128
"""128 + n: Envoy died of signal n and the agent gave up restarting it."""


EXIT_GAVE_UP = 1
"""Envoy kept ending with 0 though nobody had asked it to, and the agent gave up restarting it."""


EXIT_INTERCEPTION = 1
"""istio-iptables: a setting that can't be, or rules that can't be applied."""

EXIT_DEMO = 1
"""demo: a step did not happen."""

EXIT_DIFFERS = 2
"""istio-iptables status: the rules that are there are not the wanted ones."""

EXIT_NOT_CAPTURED = 126
"""istio-iptables --run-validation: a connection was not captured. Istio's CNI repair looks for it."""


class AgentError(Exception):
    """Base of everything the agent reports to a person instead of raising a traceback."""

    exit_code = EXIT_SETTINGS


class UsageError(AgentError):
    """A command line that can't be understood."""


class SettingsError(AgentError):
    """A flag, variable, annotation or settings file that can't be used."""


class TemplateError(SettingsError):
    """A template that does not render, or renders something that is not JSON."""


class EnvoyRefused(SettingsError):
    """Envoy itself refused a document (`--mode validate`); the text carries Envoy's own words."""


class PortInUse(SettingsError):
    """A port the agent or its Envoy must listen on belongs to somebody else."""


class MeshError(AgentError):
    """A document of the local mesh (`--configDir`) that can't be used: file, line, field, reason."""


class AdminError(AgentError):
    """Envoy's admin interface did not answer, or not with what was asked."""


class InterceptionError(AgentError):
    """Traffic can't be captured as it was told; the tables are as they were."""

    exit_code = EXIT_INTERCEPTION


class DemoError(AgentError):
    """The demo can't go on: a pod could not be made, or a step did not happen."""

    exit_code = EXIT_DEMO


class IdentityError(AgentError):
    """Something about keys, certificates, tokens or the CA; `kind`, one of IDENTITY_ERRORS, is its label in metrics."""

    def __init__(self, kind: str, text: str) -> None:
        assert kind in IDENTITY_ERRORS, kind
        super().__init__(text)
        self.kind = kind


IDENTITY_ERRORS = (
    "ca_unavailable",
    "ca_timeout",
    "ca_denied",
    "ca_error",
    "ca_answer",
    "ca_root",
    "client_certificate",
    "token",
    "file_missing",
    "file_unreadable",
    "pem",
    "key_mismatch",
    "expired",
    "not_yet_valid",
    "output",
    "crypto",
    "unknown_name",
    "internal",
)
"""Why a certificate could not be had or used; the label of the failure counters."""
