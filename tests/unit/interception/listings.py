"""What nft would list of a state, written as it does; and an nft that answers with it."""

from collections.abc import Mapping, Sequence

from pilot_agent.interception.execute import CommandMissing, Outcome
from pilot_agent.interception.nft_listing import Chain, Table, Tables


def listing(tables: Tables) -> str:
    return "".join(f"table inet istio-proxy-{name} {{\n{_body(table)}}}\n" for name, table in tables.items())


def _body(table: Table) -> str:
    others = [f"\t{line}\n" for line in table.others]
    return "\n".join([*others, *(f"\tchain {name} {{\n{_rules(chain)}\t}}\n" for name, chain in table.chains.items())])


def _rules(chain: Chain) -> str:
    return "".join(f"\t\t{line}\n" for line in (chain.base, *chain.rules) if line)


class FakeNft:
    """Answers by the last words of the command; `told` is what came in on standard input."""

    def __init__(self, listed: str = "", version: str = "1.0.6", write: Outcome | None = None) -> None:
        self.answers = {
            "--version": Outcome(0, f"nftables v{version} (Lester Gooch #5)\n"),
            "inet": Outcome(0, listed),
            "-": write or Outcome(0),
        }
        self.told: list[str] = []
        self.argvs: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str], stdin: str = "", variables: Mapping[str, str] | None = None) -> Outcome:
        self.argvs.append(argv)
        if stdin:
            self.told.append(stdin)
        return self.answers[argv[-1]]


def no_nft(argv: Sequence[str], stdin: str = "", variables: Mapping[str, str] | None = None) -> Outcome:
    raise CommandMissing("nft was not found: it is not installed, or not in /bin")
