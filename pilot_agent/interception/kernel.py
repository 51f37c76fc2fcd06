"""What iptables has: its two back ends (nft, legacy), two families each, read with `-save` and changed with `-restore`.

Reading never makes a table: Istio's probe rule leaves empty ones behind, and the next run takes those for rules and
changes the back end (reference iptables.md, section 8). So a back end counts by the rules in it, ours above all.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.execute import CommandMissing, Outcome, Run
from pilot_agent.interception.parse import parse_save
from pilot_agent.interception.plan import Tables, has_own
from pilot_agent.interception.rules import Family

Backend = Literal["nft", "legacy", "plain"]
"""`plain`: `iptables` without a suffix, where the others are not installed; whichever back end that is."""

LOCK_WAIT_S = 30
LOCK_FILE = Path("/run/xtables.lock")
_FAMILIES: tuple[Family, ...] = (4, 6)


class Reading(NamedTuple):
    """What one back end has by family; `problem` why it can't be used, None where it can."""

    backend: Backend
    tables: Mapping[Family, Tables]
    problem: str | None = None
    is_installed: bool = True

    @property
    def has_ours(self) -> bool:
        return any(has_own(each) for each in self.tables.values())

    @property
    def has_rules(self) -> bool:
        return any(lines for each in self.tables.values() for chains in each.values() for lines in chains.values())


class Iptables:
    """`lock_file` (of a CNI plug-in): where legacy takes its lock, instead of the host's."""

    def __init__(self, run: Run, lock_file: str = "") -> None:
        self._run, self._lock_file = run, lock_file

    def read(self, backend: Backend, *, needs_ipv6: bool) -> Reading:
        """IPv6 that can't be read is a problem only where it is needed: some kernels are without."""
        tables: dict[Family, Tables] = {}
        for family in _FAMILIES:
            try:
                tables[family] = self._saved(backend, family)
            except InterceptionError as error:
                if family == 4 or needs_ipv6:
                    return Reading(backend, {}, str(error), not isinstance(error, CommandMissing))
                tables[family] = {}
        return Reading(backend, tables)

    def _saved(self, backend: Backend, family: Family) -> Tables:
        return {
            table: {name: chain.lines for name, chain in chains.items()}
            for table, chains in parse_save(self.said(backend, family)).items()
        }

    def said(self, backend: Backend, family: Family, *, with_counters: bool = False) -> str:
        """All of iptables-save. Raises InterceptionError."""
        command = f"{binary(backend, family)}-save"
        outcome = self._run([command, *(["-c"] if with_counters else [])])
        if outcome.code != 0:
            raise InterceptionError(f"{command}: {explained(outcome, command)}")
        return outcome.output

    def restore(self, backend: Backend, family: Family, text: str) -> None:
        """Raises InterceptionError in one line; what its text says of later tables has not been done then."""
        name = binary(backend, family)
        argv = [f"{name}-restore", "--noflush"]
        if backend != "nft":
            argv.append(f"--wait={LOCK_WAIT_S}")
        variables = {"XTABLES_LOCKFILE": self._lock_file} if self._lock_file and backend != "nft" else None
        outcome = self._run(argv, text, variables)
        if outcome.code != 0:
            raise InterceptionError(f"{argv[0]}: {explained(outcome, argv[0], self._lock_file, text)}")


def binary(backend: Backend, family: Family) -> str:
    name = "iptables" if family == 4 else "ip6tables"
    return name if backend == "plain" else f"{name}-{backend}"


class Choice(NamedTuple):
    """The back end to use, what it has, and (`other`) the one that has rules of ours besides."""

    reading: Reading
    other: Reading | None


def choose(iptables: Iptables, forced: str, *, needs_ipv6: bool) -> Choice:
    """Raises InterceptionError when none can be used.

    Forced; else the one with rules of ours; else legacy where only that has rules of anybody; else nft; else whatever
    `iptables` is. The same in every run: what was chosen before has rules of ours by now.
    """
    legacy, nft = (iptables.read(each, needs_ipv6=needs_ipv6) for each in ("legacy", "nft"))
    usable = [each for each in (nft, legacy) if each.problem is None]
    if forced:
        chosen = nft if forced == "nft" else legacy
        if chosen.problem is not None:
            raise InterceptionError(f"--force-iptables-binary {forced}: {chosen.problem}")
    elif not usable:
        chosen = iptables.read("plain", needs_ipv6=needs_ipv6)
        if chosen.problem is not None:
            # Of one that is installed the reason it can't be used says more than that another one is not.
            problems = [each for each in (nft, legacy, chosen) if each.is_installed] or [chosen]
            raise InterceptionError(str(problems[0].problem))
    else:
        chosen = _preferred(usable)
    other = next((each for each in usable if each is not chosen and each.has_ours), None)
    return Choice(chosen, other)


def _preferred(usable: Sequence[Reading]) -> Reading:
    ours = [each for each in usable if each.has_ours]
    if len(ours) == 1:
        return ours[0]
    legacy = next((each for each in usable if each.backend == "legacy"), None)
    return legacy if legacy is not None and legacy.has_rules and not ours else usable[0]


_MODULES = (
    (re.compile(r"initialize ip6?tables table `(\w+)'"), "table {0}", "{family}table_{0}"),
    (re.compile(r"[Cc]ouldn't load match `(\w+)'"), "match {0}", "xt_{0}"),
    (re.compile(r"[Cc]ouldn't load target `(\w+)'"), "target {0}", "xt_{0}"),
    (re.compile(r"Extension (\w+) revision \d+ not supported, missing kernel module"), "extension {0}", "xt_{0}"),
)


def explained(outcome: Outcome, command: str, lock_file: str = "", text: str = "") -> str:
    """What went wrong, in one line: lock and holder, missing rights or kernel module, the rule that was refused."""
    words = " ".join(outcome.complaints.split())
    if "xtables lock" in words:
        return f"another process holds the xtables lock for more than {LOCK_WAIT_S} s: {_holder(lock_file)}"
    if "Permission denied" in words or "you must be root" in words or "Operation not permitted" in words:
        return f"no permission: it takes root and the capability NET_ADMIN ({outcome.reason})"
    for pattern, what, module in _MODULES:
        if found := pattern.search(words):
            family = "ip6" if command.startswith("ip6") else "ip"
            name = module.format(found[1].lower(), family=family)
            return f"the kernel lacks {what.format(found[1])}: load its module {name} on the node ({outcome.reason})"
    line = re.search(r"line:? (\d+)", words)
    lines = text.splitlines()
    if line and int(line[1]) <= len(lines):
        return f"{words}: {lines[int(line[1]) - 1]}"
    return words or outcome.reason


def _holder(lock_file: str) -> str:
    """Who has a lock on the file, by /proc/locks."""
    path = Path(lock_file) if lock_file else LOCK_FILE
    try:
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
            fields = line.split()
            if fields[5].rpartition(":")[2] == inode:
                pid = fields[4]
                name = Path("/proc", pid, "comm").read_text(encoding="utf-8").strip()
                return f"process {pid} ({name}) has it ({path})"
    except (OSError, IndexError):
        pass
    return f"who has it can't be told ({path})"
