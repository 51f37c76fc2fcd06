"""The bootstrap's short view: which Istio and which Envoy this is."""

from pilot_agent.inspect.columns import NARROW, table
from pilot_agent.inspect.fields import Message, message, number, text


def summary(section: Message) -> str:
    """The lines of a BootstrapConfigDump, those that it says something for."""
    node = message(section, "bootstrap", "node")
    metadata = message(node, "metadata") or {}
    _, colon, digest = text(metadata, "ISTIO_PROXY_SHA").partition(":")
    facts = (
        ("Istio Version:", text(metadata, "ISTIO_VERSION")),
        ("Istio Proxy Version:", digest.partition(":")[0] if colon else text(metadata, "ISTIO_PROXY_SHA")),
        ("Envoy Version:", _envoy(message(node, "user_agent_build_version"))),
    )
    return table([fact for fact in facts if fact[1]], NARROW)


def _envoy(build: Message | None) -> str:
    """`1.40.0-label/Clean/RELEASE/BoringSSL`, as /server_info has it but for the revision."""
    version = ".".join(str(number(build, "version", part)) for part in ("major_number", "minor_number", "patch"))
    metadata = message(build, "metadata") or {}
    parts = (("-", "build.label"), ("/", "revision.status"), ("/", "build.type"), ("/", "ssl.version"))
    return version + "".join(before + text(metadata, name) for before, name in parts if name in metadata)
