"""What the agent has in memory in a mesh, by its imports: neither cryptography nor protobuf (decisions 12 and 13)."""

import subprocess
import sys

HEAVY = ("cryptography", "google.protobuf", "envoy.config", "envoy.service")
PARTS = (
    "pilot_agent.supervise.agent",
    "pilot_agent.sds.server",
    "pilot_agent.xds.server",
    "pilot_agent.xds.messages",
    "pilot_agent.identity.ca",
    "pilot_agent.identity.messages",
    "pilot_agent.identity.local_ca",
    "pilot_agent.identity.crypto_child",
)


def test_no_part_of_the_running_agent_imports_what_it_does_not_need() -> None:
    code = f"import sys, {', '.join(PARTS)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [each for each in loaded if each.startswith(HEAVY)] == []
    assert {"grpc", "asyncio"} <= set(loaded), "and it is the agent that was looked at"
