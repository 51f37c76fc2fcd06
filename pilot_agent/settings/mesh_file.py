"""What local mode takes from the mesh file itself (MeshConfig), where istiod would: ports, access log, defaults.

`defaultConfig` in it is a ProxyConfig, and mesh's. Called by sources.
"""

import json
import re
from collections.abc import Mapping

from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import MeshSettings
from pilot_agent.values import parse_port


def mesh_settings(document: Mapping[str, object], path: str) -> MeshSettings:
    """What local mode takes from MeshConfig itself. Raises SettingsError naming the field."""
    reader = MeshFile(document, path)
    is_json = reader.choice("accessLogEncoding", ("TEXT", "JSON")) == "JSON"
    return MeshSettings(
        reader.port("proxyListenPort", 15001),
        reader.port("proxyInboundListenPort", 15006),
        reader.text("accessLogFile", "a path"),
        is_json,
        reader.log_format(is_json=is_json),
        reader.outbound_policy(),
        reader.text("rootNamespace", "a namespace") or "istio-system",
        reader.flag("enableAutoMtls", default=True),
    )


class MeshFile:
    """Fields of a MeshConfig, by their JSON names or protobuf's own. Raises SettingsError for what can't be."""

    def __init__(self, document: Mapping[str, object], path: str) -> None:
        self._document, self._path = document, path

    def value(self, name: str) -> object:
        snake = re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", name)
        return next((self._document[key] for key in (name, snake) if self._document.get(key) is not None), None)

    def port(self, name: str, default: int) -> int:
        try:
            return default if self.value(name) is None else parse_port(self.value(name))
        except ValueError as error:
            raise self._refusal(name, str(error)) from None

    def text(self, name: str, what: str) -> str:
        value = self.value(name)
        if value is None or isinstance(value, str):
            return value or ""
        raise self._refusal(name, f"{value!r} is not {what}")

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The first is the default."""
        value = self.value(name)
        if value is None:
            return choices[0]
        if value not in choices:
            raise self._refusal(name, f"{value!r} is unknown: use one of {', '.join(choices)}")
        return str(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._refusal(name, f"{value!r} is neither true nor false")
        return value

    def log_format(self, *, is_json: bool) -> object:
        """Text, ending its line, or with the encoding JSON the object it says."""
        text = self.text("accessLogFormat", "a text")
        if not text or not is_json:
            return text if not text or text.endswith("\n") else f"{text}\n"
        try:
            value = json.loads(text)
        except ValueError as error:
            raise self._refusal("accessLogFormat", f"not JSON, as accessLogEncoding says: {error}") from None
        if not isinstance(value, dict):
            raise self._refusal("accessLogFormat", "not a JSON object, as accessLogEncoding JSON needs it")
        return value

    def outbound_policy(self) -> str:
        policy = self.value("outboundTrafficPolicy")
        if policy is None:
            return "ALLOW_ANY"
        if not isinstance(policy, dict):
            raise self._refusal("outboundTrafficPolicy", "is not a mapping: write mode: REGISTRY_ONLY below it")
        inner = MeshFile(policy, self._path)
        return inner.choice("mode", ("ALLOW_ANY", "REGISTRY_ONLY"))

    def _refusal(self, name: str, reason: str) -> SettingsError:
        return SettingsError(f"mesh file {self._path}: {name}: {reason}")
