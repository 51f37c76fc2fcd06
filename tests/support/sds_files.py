"""A workload's secrets as files, as the agent of local mode writes them, of a development CA."""

import time
from collections.abc import Mapping
from pathlib import Path

from pilot_agent.files.publish import publish
from pilot_agent.identity.keys import KeySpec
from pilot_agent.identity.local_ca import create, issue, read_ca
from pilot_agent.identity.slots import Slot, key_pair, validation
from pilot_agent.sds.files import SecretFiles
from tests.support.recorded_log import RecordedLog


def write_secrets(directory: Path, account: str, authority: Path) -> str:
    """For a workload of the namespace `default`, by the CA in `authority`, made there if need be; the directory."""

    def publish_all(contents: Mapping[Path, bytes], modes: Mapping[Path, int]) -> None:
        for path, content in contents.items():
            publish(path, content, modes[path])

    now = time.time()
    if not authority.exists():
        create(authority, "cluster.local", 3600, now, publish_all)
    issued = issue(
        read_ca(authority, now), KeySpec("ECDSA"), f"spiffe://cluster.local/ns/default/sa/{account}", 3600, now
    )
    files = SecretFiles(directory, None, lambda: None, RecordedLog().scope)
    files.make_place(("default", "ROOTCA"))
    pair, roots = Slot("default"), Slot("ROOTCA")
    pair.offer(key_pair(issued.chain, issued.key, issued.facts))
    roots.offer(validation(issued.root))
    for slot in (pair, roots):
        files.serve(slot)
    assert files.problem is None
    return str(directory)
