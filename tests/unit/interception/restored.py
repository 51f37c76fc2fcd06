"""What `iptables-restore --noflush` makes of a text, as far as plans use it: a model for tests without a kernel."""

from collections.abc import Mapping, Sequence

from pilot_agent.interception.rules import BUILT_IN_CHAINS

State = dict[str, dict[str, list[str]]]


def restored(tables: Mapping[str, Mapping[str, Sequence[str]]], text: str) -> State:
    """AssertionError for what the real one would refuse."""
    state: State = {table: {chain: list(lines) for chain, lines in chains.items()} for table, chains in tables.items()}
    table: dict[str, list[str]] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if line.startswith("*"):
            table = state.setdefault(line[1:], {})
        elif line.startswith(":"):
            table[line[1:].split()[0]] = []
        elif word == "-A":
            _append(table, rest.split()[0], line)
        elif word == "-I":
            chain, index, spec = rest.split(" ", 2)
            _check_target(table, spec)
            table.setdefault(chain, []).insert(int(index) - 1, f"-A {chain} {spec}")
        elif word == "-D":
            table[rest.split()[0]].remove(f"-A {rest}")
        elif word == "-X":
            assert table[rest] == [], f"{rest} is not empty"
            assert not any(each.endswith(f" {rest}") for lines in table.values() for each in lines), f"{rest} is used"
            del table[rest]
        else:
            assert line == "COMMIT", line
    return state


def _append(table: dict[str, list[str]], chain: str, line: str) -> None:
    assert chain in BUILT_IN_CHAINS or chain in table, f"there is no chain {chain}"
    _check_target(table, line)
    table.setdefault(chain, []).append(line)


def _check_target(table: dict[str, list[str]], line: str) -> None:
    target = line.partition("-j ")[2].split(maxsplit=1)[0]
    assert not target.startswith("ISTIO_") or target in table, f"there is no chain {target}"
