"""Local mode as the supervisor sees it: load the directory before Envoy starts, reload it when a file changed.

It ties reader and publisher together, and says what changed: in the log, and in the attributes that metrics and
readiness show. It watches nothing and has no threads: who watches the files calls reload().
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pilot_agent.errors import AgentError, SettingsError
from pilot_agent.log import Scope
from pilot_agent.mesh.documents import MeshReader, Reading
from pilot_agent.mesh.model import DocumentRefused, FieldWarning, Service
from pilot_agent.mesh.publish import Published, Publisher
from pilot_agent.mesh.view import View, see

Services = dict[str, tuple[object, ...]]
_MOST_NAMES = 10


class Change(NamedTuple):
    """What one (re)load did: hosts by what happened to them, and the milliseconds it took."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    published: Published | None = None
    milliseconds: float = 0.0

    @property
    def is_effective(self) -> bool:
        return bool(self.published and (self.published.written or self.published.removed))


class LocalMesh:
    """The local mesh. Counters only grow; `errors` and `warnings` are what is wrong now."""

    def __init__(self, directory: Path, publisher: Publisher, log: Scope) -> None:
        self.directory = directory
        self._publisher, self._log = publisher, log
        self._reader = MeshReader(directory, publisher.options)
        self._services: Services = {}
        self.published: Published | None = None
        self.errors: Mapping[str, str] = {}
        self.warnings: tuple[FieldWarning, ...] = ()
        self.reloads_total = 0
        self.refused_total = 0

    @property
    def services(self) -> int:
        """Hosts served now."""
        return len(self._services)

    @property
    def lds_path(self) -> Path:
        """For the bootstrap: the file of LDS. Its directory is what Envoy watches; the same goes for CDS."""
        return self._publisher.lds_path

    @property
    def cds_path(self) -> Path:
        return self._publisher.cds_path

    def load(self) -> None:
        """Read and publish for the first time, so that Envoy finds everything in place.

        Broken files are reported, not raised. Raises SettingsError when the directory can't be read or the result not
        written, TemplateError when a template is broken.
        """
        started = time.perf_counter()
        try:
            reading = self._reader.read()
        except OSError as error:
            raise SettingsError(
                f"--configDir {self.directory}: {error.strerror}; give a directory with Istio YAML, it may be empty"
            ) from None
        try:
            view = see(reading.resources, self._publisher.options)
            published = self._publisher.publish(view)
        except OSError as error:
            raise SettingsError(f"{error.filename}: {error.strerror}; --configPath must be writable") from None
        self._take(reading, view, published, started)

    def reload(self) -> Change:
        """Read again and publish what changed. Trouble is logged, counted and in `errors`; what serves goes on."""
        started = time.perf_counter()
        self.reloads_total += 1
        try:
            reading = self._reader.read()
        except OSError as error:
            name = str(self.directory)
            text = f"{name}: can't be read: {error.strerror}; what was loaded from it goes on serving"
            self._report_errors({**self.errors, name: text}, {})
            return Change()
        try:
            view = see(reading.resources, self._publisher.options)
            published = self._publisher.publish(view)
        except (AgentError, OSError) as error:
            output = str(self.lds_path.parent.parent)
            self._report(reading, {output: f"{output}: can't be published: {error}"})
            return Change()
        return self._take(reading, view, published, started)

    def remove(self) -> None:
        """Delete the published files; the directory with the documents stays as it is."""
        self._publisher.remove()

    def _take(self, reading: Reading, view: View, published: Published, started: float) -> Change:
        """Make a reading that was published the current one."""
        placed = self._reader.place(view.problems)
        self._report(reading._replace(warnings=(*reading.warnings, *placed)))
        before, now = self._services, _by_host(view.services)
        self._services, self.published = now, published
        change = Change(
            added=tuple(sorted(now.keys() - before.keys())),
            changed=tuple(sorted(host for host in now.keys() & before.keys() if now[host] != before[host])),
            removed=tuple(sorted(before.keys() - now.keys())),
            published=published,
            milliseconds=(time.perf_counter() - started) * 1000,
        )
        if change.is_effective:
            self._log.info(
                f"Local mesh published: {_summary(change)}", services=self.services, ms=f"{change.milliseconds:.1f}"
            )
        return change

    def _report(self, reading: Reading, failure: Mapping[str, str] | None = None) -> None:
        """Log each problem when it appears, changes or goes away, and only then. `failure` is not about a file."""
        errors = {name: str(error) for name, error in reading.errors.items()}
        self._report_errors(errors | dict(failure or {}), reading.errors)
        known = {str(warning) for warning in self.warnings}
        for warning in reading.warnings:
            if str(warning) not in known:
                self._log.warn(f"Not used: {warning.reason}", file=warning.file, line=warning.line, field=warning.field)
        self.warnings = reading.warnings

    def _report_errors(self, current: dict[str, str], details: Mapping[str, DocumentRefused]) -> None:
        for name, text in current.items():
            if self.errors.get(name) != text:
                self.refused_total += 1
                if name in details:
                    _log_refusal(self._log, details[name])
                else:
                    self._log.error(f"Local mesh: {text}")
        for name in self.errors.keys() - current.keys():
            self._log.info(f"{name}: the error is gone", file=name)
        self.errors = current


def _log_refusal(log: Scope, refusal: DocumentRefused) -> None:
    log.error(
        f"Refused as a whole, its last good version goes on serving: {refusal.reason}",
        file=refusal.file,
        line=refusal.line,
        field=refusal.field,
    )


def _by_host(services: tuple[Service, ...]) -> Services:
    """What each host has, without where it is written: moving a document does not change a service."""
    return {
        each.host: (each.addresses, each.ports, each.resolution, each.endpoints, each.subject_alt_names)
        for each in services
    }


def _summary(change: Change) -> str:
    """`added a.example.com, b.example.com; removed c.example.com`, or what happened without a service changing."""
    parts = [
        f"{verb} {', '.join(hosts[:_MOST_NAMES])}"
        + (f" and {len(hosts) - _MOST_NAMES} more" if len(hosts) > _MOST_NAMES else "")
        for verb, hosts in (("added", change.added), ("changed", change.changed), ("removed", change.removed))
        if hosts
    ]
    return "; ".join(parts) or "no service changed"
