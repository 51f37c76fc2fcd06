"""What the two Envoys of the end-to-end stage answered once, and the tables of it: `golden/views/demo/`.

PILOT_AGENT_UPDATE_GOLDEN=1 with tests/netns/test_mesh.py records them anew: then read the difference. Left out of the
dumps is what no table shows and what is of one run only: most of the bootstrap, and where the stage was.
"""

import json
from datetime import datetime
from typing import Any

from pilot_agent.demo.pod import Pod
from pilot_agent.inspect import config_dump, views
from pilot_agent.inspect.views import Wanted
from tests.support.confidential import found_in
from tests.support.dumps import RECORDED

DIRECTORY = RECORDED / "demo"
PODS = ("sleep", "httpbin")
FILES = ("config_dump.json", "clusters.json", "all.txt", "endpoints.txt")
SOMEWHERE = "/var/lib/stage"


def recorded(pod: str, file: str) -> str:
    return (DIRECTORY / f"{pod}.{file}").read_text()


def answers(pod: Pod) -> dict[str, str]:
    """The two answers of its Envoy, as they are recorded."""
    dump, clusters = pod.admin("/config_dump?include_eds"), pod.admin("/clusters?format=json")
    for section in dump["configs"]:
        if section["@type"].endswith(".BootstrapConfigDump"):
            node = section["bootstrap"]["node"]
            node.pop("extensions", None)
            section["bootstrap"] = {"node": node}
    found = {"config_dump.json": readable(dump, "configs"), "clusters.json": readable(clusters, "cluster_statuses")}
    return {name: text.replace(str(pod.directory.parent), SOMEWHERE) for name, text in found.items()}


def readable(document: dict[str, Any], list_name: str) -> str:
    """A resource on a line."""
    entries = [json.dumps(entry, separators=(",", ":")) for entry in document[list_name]]
    return f'{{"{list_name}": [\n' + ",\n".join(entries) + "\n]}\n"


def tables(dump: str, clusters: str) -> dict[str, str]:
    """What `proxy-config all` and `proxy-config endpoints` show of the answers, at the time they were given."""
    everything, endpoints = (config_dump.parse(text.encode(), "it") for text in (dump, clusters))
    return {
        "all.txt": "".join(views.of_everything(everything, Wanted(), moment(dump))),
        "endpoints.txt": views.SINGLE["endpoints"](endpoints, Wanted(), moment(dump)),
    }


def moment(dump: str) -> datetime:
    """When it got its certificate."""
    sections = json.loads(dump)["configs"]
    (secrets,) = [each for each in sections if each["@type"].endswith(".SecretsConfigDump")]
    return max(datetime.fromisoformat(each["last_updated"]) for each in secrets["dynamic_active_secrets"])


def rows(text: str) -> set[str]:
    """Without their order, which is Envoy's, widths, versions, and what is of one run: certificates, clients' ways."""
    found = {" ".join(row.split()) for row in text.splitlines() if not row.startswith("secret/")}
    found = {row for row in found if " Version: " not in row}
    wherever = {row.split()[0].removeprefix("cluster/") for row in found if " ORIGINAL_DST" in row}
    return {row for row in found if not (row.startswith("endpoint/") and row.split()[-1] in wherever)}


def update(pod: Pod) -> None:
    DIRECTORY.mkdir(exist_ok=True)
    found = answers(pod)
    found |= tables(found["config_dump.json"], found["clusters.json"])
    assert not found_in("".join(found.values()))
    for name, text in found.items():
        (DIRECTORY / f"{pod.name}.{name}").write_text(text)
