"""Reading nft's listing, whatever else is in it."""

import pytest

from pilot_agent.interception.build import build
from pilot_agent.interception.nft_listing import Chain, Table, foretold, parse
from tests.unit.interception.listings import listing
from tests.unit.interception.recordings import Recording, recordings

LISTED = """table inet foreign {
	comment "table inet istio-proxy-raw {"
	set addresses {
		type ipv4_addr
		elements = { 192.0.2.1, 192.0.2.2 }
	}

	chain output {
		type filter hook output priority 0; policy accept;
		counter accept comment "} odd"
	}
}
table inet istio-proxy-nat { # progname istio
	flags dormant
	comment "ours?"

	chain output {
		type nat hook output priority -100; policy accept;
		counter jump istio-output
	}

	chain empty {
	}

	chain istio-output {
		comment "by hand"
		oifname "lo" meta l4proto tcp ip daddr != 127.0.0.1 tcp dport != 15008 meta skuid 1337 counter return
		meta l4proto tcp ip daddr 10.0.0.1 counter return
		ip daddr vmap { 10.0.0.1 : accept,
				10.0.0.2 : drop }
		meta l4proto 6 counter return
		meta l4proto 17 udp dport 53 counter return
	}
}
table inet istio-proxy-other {
	chain output {
	}
}
"""


def test_our_tables_are_read_and_others_are_passed_over() -> None:
    chains = {
        "output": Chain("type nat hook output priority -100; policy accept;", ("counter jump istio-output",)),
        "empty": Chain("", ()),
        "istio-output": Chain(
            'comment "by hand"',
            (
                # Other versions of nft may say the protocol beside the port.
                'oifname "lo" ip daddr != 127.0.0.1 tcp dport != 15008 meta skuid 1337 counter return',
                "meta l4proto tcp ip daddr 10.0.0.1 counter return",
                "ip daddr vmap { 10.0.0.1 : accept, 10.0.0.2 : drop }",
                # As said in an image without /etc/protocols.
                "meta l4proto tcp counter return",
                "udp dport 53 counter return",
            ),
        ),
    }
    assert parse(LISTED) == {"nat": Table(chains, ("flags dormant", 'comment "ours?"'))}


def test_nothing_is_no_tables() -> None:
    assert parse("") == {} == foretold([])


@pytest.mark.parametrize("case", recordings(), ids=lambda case: case.name)
def test_what_is_foretold_is_read_back(case: Recording) -> None:
    tables = foretold(build(case.options(native_nftables=True).capture))
    assert parse(listing(tables)) == tables
