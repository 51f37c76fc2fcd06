"""Every metric of the agent: name, kind, labels, meaning. `own` builds its families from it, `collateral` its page.

Names and kinds with a part of Istio's agent are Istio's (reference: metrics merge; security, metrics). No I/O.
"""

from typing import NamedTuple


class MetricEntry(NamedTuple):
    """`name` as a text scrape shows it. `part`: what of the agent it tells of; not `is_used`: the part does not exist
    in this version, and the name is kept for it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    part: str
    is_used: bool = True


def _entry(name: str, kind: str, meaning: str, part: str, *labels: str) -> MetricEntry:
    return MetricEntry(f"istio_agent_{name}", kind, labels, meaning, part)


def _later(name: str, kind: str, meaning: str, part: str, *labels: str) -> MetricEntry:
    return MetricEntry(f"istio_agent_{name}", kind, labels, meaning, part, is_used=False)


_SCRAPES = (
    _entry("scrapes_total", "counter", "The total number of scrapes.", "Scrapes"),
    _entry(
        "scrape_failures_total",
        "counter",
        "The total number of failed scrapes, by type: envoy, application or agent.",
        "Scrapes",
        "type",
    ),
    _entry("scrapes_in_flight", "gauge", "Scrapes that are running.", "Scrapes"),
    _entry("scrapes_refused_total", "counter", "Scrapes refused because too many were running.", "Scrapes"),
    _entry("scrape_source_up", "gauge", "1 when the last scrape got a whole answer of a source.", "Scrapes", "source"),
    _entry("scrape_source_duration_seconds", "gauge", "Time a source took, last scrape.", "Scrapes", "source"),
    _entry("scrape_source_bytes", "gauge", "What a source sent, last scrape.", "Scrapes", "source"),
    _entry("scrape_source_failures_total", "counter", "Scrapes that a source failed.", "Scrapes", "source"),
    _entry(
        "scrape_source_last_error_info", "gauge", "1, with the last error of a source.", "Scrapes", "source", "error"
    ),
    _entry(
        "scrape_dropped_families_total",
        "counter",
        "Metric families left out: an earlier source has the name with another type.",
        "Scrapes",
        "source",
    ),
    _entry(
        "scrape_dropped_samples_total",
        "counter",
        "Samples left out: an earlier source has the same series.",
        "Scrapes",
        "source",
    ),
    _entry("scrape_dropped_lines_total", "counter", "Lines left out: they are no samples.", "Scrapes", "source"),
)

_LIFE = (
    _entry("ready", "gauge", "1 while the proxy is ready for traffic.", "Start"),
    _entry("startup_duration_seconds", "gauge", "The time from the process starting to being marked ready.", "Start"),
    _entry(
        "start_phase_seconds", "gauge", "The time from the process starting to the end of a phase.", "Start", "phase"
    ),
    _entry("envoy_epoch", "gauge", "The restart epoch of the Envoy that serves.", "Envoy"),
    _entry("envoy_restarts_total", "counter", "Starts of Envoy after the first.", "Envoy", "reason"),
    _entry(
        "envoy_hung_checks_total", "counter", "Checks that Envoy's admin interface did not answer in time.", "Envoy"
    ),
    _entry("envoy_last_exit_code", "gauge", "How the last Envoy ended: its code, or 128 + its signal.", "Envoy"),
    _entry("envoy_last_exit_info", "gauge", "How the last Envoy ended.", "Envoy", "code", "signal", "reason"),
    _entry("config_errors", "gauge", "1 for each local configuration file that is refused.", "Configuration", "file"),
    _entry(
        "config_reloads_total",
        "counter",
        "Changed configurations by what became of them: accepted or refused.",
        "Configuration",
        "result",
    ),
    _entry("reaped_orphans_total", "counter", "Zombies reaped that were not children of the agent.", "Processes"),
)


def _process(name: str, kind: str, meaning: str, *labels: str) -> MetricEntry:
    return MetricEntry(name, kind, labels, meaning, "The agent's process")


_PROCESS = (
    _process("process_cpu_seconds_total", "counter", "User and system CPU time spent."),
    _process("process_resident_memory_bytes", "gauge", "Resident memory."),
    _process("process_virtual_memory_bytes", "gauge", "Virtual memory."),
    _process("process_start_time_seconds", "gauge", "Start time since the epoch."),
    _process("process_open_fds", "gauge", "Open file descriptors."),
    _process("process_max_fds", "gauge", "Most file descriptors that may be open."),
    _process(
        "python_info",
        "gauge",
        "1, with the Python it runs on.",
        "implementation",
        "major",
        "minor",
        "patchlevel",
        "version",
    ),
)

_IDENTITY = (
    _entry("num_outgoing_requests", "counter", "Requests for certificates.", "Certificates", "request_type"),
    _entry("num_failed_outgoing_requests", "counter", "Those that failed.", "Certificates", "request_type"),
    _entry("num_outgoing_retries", "counter", "Attempts of those after the first.", "Certificates", "request_type"),
    _entry("outgoing_latency", "counter", "Milliseconds they took, summed up.", "Certificates", "request_type"),
    _entry(
        "cert_expiry_seconds",
        "gauge",
        "Seconds until a certificate of the CA expires, negative when it has.",
        "Certificates",
        "resource_name",
    ),
    _entry(
        "cert_not_after_timestamp_seconds",
        "gauge",
        "When a certificate expires, whoever gave it.",
        "Certificates",
        "resource_name",
    ),
    _entry("cert_renewals_total", "counter", "Certificates that the CA issued and that were taken.", "Certificates"),
    _entry(
        "cert_failures_total",
        "counter",
        "What went wrong with certificates, by reason: the CA, files, the token, OUTPUT_CERTS.",
        "Certificates",
        "reason",
    ),
    _entry("cert_file_changes_total", "counter", "Changed certificate files that were taken.", "Certificates"),
    _entry("cert_files_checked_seconds", "gauge", "Seconds since certificate files were looked at.", "Certificates"),
    _entry("token_expiry_seconds", "gauge", "Seconds until the token for the CA expires.", "Certificates"),
    _entry("num_file_watcher_failures_total", "counter", "Certificate files that can't be watched.", "Certificates"),
    _entry("num_file_secret_failures_total", "counter", "Certificate files that can't be used.", "Certificates"),
    _entry("sds_streams", "gauge", "SDS streams that are open.", "SDS"),
    _entry("sds_pushes_total", "counter", "Responses with secrets that were sent.", "SDS"),
    _entry("pilot_xds_recv_max", "gauge", "The largest request received from Envoy, in bytes.", "SDS"),
    _entry("pilot_total_xds_rejects", "counter", "Secrets that Envoy refused.", "SDS"),
    _entry("pilot_xds_expired_nonce", "counter", "Requests with an old nonce.", "SDS", "type"),
    _entry("pilot_xds_write_timeout", "counter", "Secrets that could not be sent in time.", "SDS"),
    _entry("pilot_total_xds_internal_errors", "counter", "Errors of the SDS server itself.", "SDS"),
    _entry("pilot_xds_send_time", "histogram", "Seconds to send a secret.", "SDS"),
)

_XDS = (
    _entry("xds_proxy_requests", "counter", "Messages forwarded to the control plane.", "xDS"),
    _entry("xds_proxy_responses", "counter", "Messages received from the control plane.", "xDS"),
    _entry("istiod_connection_failures", "counter", "Connections to istiod that could not be set up.", "xDS"),
    _entry("istiod_connection_terminations", "counter", "Streams to istiod that ended.", "xDS", "type"),
    _entry("envoy_connection_terminations", "counter", "Envoy's xDS streams that ended.", "xDS", "type"),
    _entry("xds_left_out_total", "counter", "What a stock Envoy could not load, left out of pushes.", "xDS", "part"),
)

_LATER = (
    _later("dns_requests_total", "counter", "DNS requests.", "DNS"),
    _later("dns_upstream_requests_total", "counter", "DNS requests sent on.", "DNS"),
    _later("dns_upstream_failures_total", "counter", "DNS requests that every upstream failed.", "DNS"),
    _later("dns_upstream_request_duration_seconds", "histogram", "Time of upstream DNS requests.", "DNS"),
    _later("wasm_cache_entries", "gauge", "Wasm modules in the cache.", "Wasm"),
    _later("wasm_cache_lookup_count", "counter", "Lookups in that cache.", "Wasm", "hit"),
    _later("wasm_remote_fetch_count", "counter", "Modules fetched, by result.", "Wasm", "result"),
    _later("wasm_config_conversion_count", "counter", "Configurations converted, by result.", "Wasm", "result"),
    _later("wasm_config_conversion_duration", "histogram", "Milliseconds such a conversion took.", "Wasm"),
)

METRICS = (*_SCRAPES, *_LIFE, *_IDENTITY, *_XDS, *_PROCESS, *_LATER)

BY_NAME = {entry.name: entry for entry in METRICS}
