"""What is imported when: little before Envoy's start (decision 5), in a mesh neither cryptography nor protobuf."""

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


def test_nothing_heavy_is_imported_before_envoy_is_spawned() -> None:
    """Invariant 2: these modules take a start up to there, local mode's among them."""
    before = (
        "pilot_agent.commands.proxy",
        "pilot_agent.supervise.prepare",
        "pilot_agent.mesh.local",
        "pilot_agent.mesh.publish",
    )
    heavy = ("asyncio", "ssl", "concurrent", "dataclasses", "aiohttp", "grpc", "click", "msgspec", "yaml", "watchfiles")
    code = f"import sys, {', '.join(before)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [each for each in loaded if each.partition(".")[0] in heavy] == []
    assert "jinja2" in loaded, "and it is the start that was looked at"
