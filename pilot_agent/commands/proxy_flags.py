"""The flags of `pilot-agent proxy`: Istio's, and ours. Defaults are those of `ProxyFlags`, where the values go.

`config` and `bootstrap` take them too, to say what `proxy` would do.
"""

from typing import Any

from pilot_agent.commands.flags import Flag
from pilot_agent.commands.parsing import Parsed
from pilot_agent.errors import UsageError
from pilot_agent.settings.model import ProxyFlags
from pilot_agent.settings.sources import ROLES

DEFAULTS = ProxyFlags()


def _flag(name: str, attribute: str, effect: str, **more: Any) -> Flag:
    return Flag(name, attribute, getattr(DEFAULTS, attribute), effect, **more)


PROXY_FLAGS = (
    _flag("domain", "domain", "DNS domain of the node; empty means POD_NAMESPACE.svc.cluster.local", metavar="DOMAIN"),
    _flag("meshConfig", "mesh_config", "MeshConfig file; a missing one is no error", metavar="FILE"),
    _flag(
        "configDir",
        "config_dir",
        "Local mode: take the configuration from the Istio YAML files in this directory instead of istiod",
        metavar="DIR",
    ),
    _flag(
        "caDir",
        "ca_dir",
        "Local mode: have the workload's certificate signed by the development CA in this directory (pilot-agent ca)",
        metavar="DIR",
    ),
    _flag("stsPort", "sts_port", "Node metadata STS_PORT; there is no STS server any more"),
    _flag("tokenManagerPlugin", "token_manager_plugin", "Accepted for compatibility, without effect"),
    _flag("serviceCluster", "service_cluster", "Service name, when the proxy configuration explicitly has none"),
    _flag(
        "proxyLogLevel",
        "proxy_log_level",
        "Envoy's log level, with or without component:level pairs",
        metavar="LEVEL,...",
    ),
    _flag(
        "proxyComponentLogLevel",
        "proxy_component_log_level",
        "Deprecated: component:level pairs, when --proxyLogLevel has none",
    ),
    _flag("concurrency", "concurrency", "Envoy's worker threads; 0 leaves it to the proxy configuration"),
    _flag(
        "templateFile", "template_file", "Jinja2 template of the bootstrap instead of the shipped one", metavar="FILE"
    ),
    _flag("outlierLogPath", "outlier_log_path", "Log file of outlier detection events", metavar="FILE"),
    _flag("profiling", "profiling", "Accepted for compatibility: Go's profiles do not exist here"),
    _flag(
        "onEnvoyExit",
        "on_envoy_exit",
        "When Envoy ends by itself: restart it with a back-off, or exit with its code as Istio's agent ends",
        choices=("restart", "exit"),
    ),
    _flag("maxCrashes", "max_crashes", "Give up after so many ends of Envoy within --crashWindow", least=1),
    _flag("crashWindow", "crash_window", "The time over which --maxCrashes counts"),
    _flag("hungChecks", "hung_checks", "Checks in a row that a hung Envoy leaves unanswered", least=1),
    _flag("hungCheckInterval", "hung_check_interval", "Time between two such checks"),
    _flag(
        "restartHungEnvoy",
        "restart_hung_envoy",
        "Kill and restart an Envoy that hangs; it is counted and makes the proxy unready either way",
    ),
    _flag("preDrainDelay", "pre_drain_delay", "Time between SIGTERM and the drain, with readiness false already"),
    _flag(
        "terminationDeadline",
        "termination_deadline",
        "Most time from SIGTERM until Envoy is told to end; 0 means terminationDrainDuration, or one hour where the "
        "drain ends on zero connections",
    ),
    _flag(
        "subreaper",
        "subreaper",
        "Adopt and reap orphaned descendants though the agent is not PID 1",
    ),
    _flag(
        "stockEnvoy",
        "stock_envoy",
        "Leave out of the bootstrap what only Istio's build of Envoy can load; auto finds out which build it is",
        choices=("auto", "true", "false"),
        bare="true",
    ),
    _flag(
        "deepMerge",
        "deep_merge",
        "Merge the nested messages of ProxyConfig layer by layer, instead of replacing each as a whole as Istio does",
    ),
    _flag(
        "scrapesInFlight",
        "scrapes_in_flight",
        "Merged scrapes that may run at once; one more is answered 429",
        least=1,
    ),
)


def proxy_flags(parsed: Parsed) -> ProxyFlags:
    """What a command line said; its first word is the role. Raises UsageError for a role there is not."""
    role = parsed.words[0] if parsed.words else DEFAULTS.role
    if role not in ROLES:
        raise UsageError(f"invalid proxy Type: {role}; use one of {', '.join(ROLES)}")
    return ProxyFlags(role, **{flag.attribute: parsed.values[flag.attribute] for flag in PROXY_FLAGS})
