"""The static runtime layer and the connection limit: what ProxyConfig's `runtimeValues` and variables make of them."""

from collections.abc import Mapping

from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import Settings

CONNECTION_LIMIT_KEY = "overload.global_downstream_max_connections"
CONNECTION_LIMIT_METADATA = "ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS"
UNLIMITED_CONNECTIONS = 2147483647

RUNTIME_DEFAULTS: Mapping[str, object] = {
    "re2.max_program_size.error_level": "32768",
    "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": True,
    "envoy.reloadable_features.http_reject_path_with_fragment": False,
    "envoy.reloadable_features.fixed_heap_use_allocated": True,
    "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": False,
}


def runtime_flags(settings: Settings) -> dict[str, object]:
    """The static runtime layer: our defaults, then ProxyConfig's runtimeValues (an empty text deletes a key)."""
    layer = dict(RUNTIME_DEFAULTS)
    environment = settings.environment
    if environment.text("COMPLIANCE_POLICY") == "fips-140-2":
        layer["envoy.reloadable_features.google_grpc_disable_tls_13"] = True
    if not environment.flag("HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED"):
        layer["envoy.reloadable_features.http_strip_fragment_from_path_unsafe_if_disabled"] = "false"
    for key, value in settings.proxy_config.runtime_values.items():
        if value == "":
            layer.pop(key, None)
        else:
            layer[key] = {"true": True, "false": False}.get(value, value)
    return layer


def connection_limit(settings: Settings) -> int:
    """How many downstream connections the overload manager lets in: the first of ProxyConfig's three places for it.

    Raises SettingsError for a limit that is not a number above 0, naming the place.
    """
    config = settings.proxy_config
    limits = (
        ("connectionSettings.globalDownstreamConnectionLimit", _connection_setting(settings)),
        (f"proxyMetadata.{CONNECTION_LIMIT_METADATA}", config.proxy_metadata.get(CONNECTION_LIMIT_METADATA)),
        (f"runtimeValues.{CONNECTION_LIMIT_KEY}", config.runtime_values.get(CONNECTION_LIMIT_KEY)),
    )
    for place, limit in limits:
        if limit:
            if not (limit.isascii() and limit.isdigit() and int(limit) > 0):
                raise SettingsError(f"{place}: {limit!r} is not a number of connections above 0")
            return int(limit)
    return UNLIMITED_CONNECTIONS


def _connection_setting(settings: Settings) -> str | None:
    limit = (settings.proxy_config.values.get("connectionSettings") or {}).get("globalDownstreamConnectionLimit")
    return None if limit is None else str(limit)
