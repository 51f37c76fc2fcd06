"""What the instance metadata service of AWS says: region, availability zone and instance id.

Asks with a session token where the service gives one. It does not to a pod behind one more network hop, hence the
short time and the second try without.
"""

from pilot_agent.cloud.server import MetadataServer, NoAnswer
from pilot_agent.node.surroundings import Platform

TIMEOUT_S = 0.1
TOKEN_LIFE_S = 60


def read(server: MetadataServer) -> Platform:
    server.headers |= _token(server)
    facts = {
        "aws_region": server.fact("/latest/meta-data/placement/region"),
        "aws_availability_zone": server.fact("/latest/meta-data/placement/availability-zone"),
        "aws_instance_id": server.fact("/latest/meta-data/instance-id"),
    }
    known = {key: value for key, value in facts.items() if value}
    locality = {"region": facts["aws_region"], "zone": facts["aws_availability_zone"]}
    return Platform("aws", {part: value for part, value in locality.items() if value}, known) if known else Platform()


def _token(server: MetadataServer) -> dict[str, str]:
    try:
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIFE_S)}
        token = server.ask("PUT", "/latest/api/token", lifetime).strip()
    except NoAnswer:
        return {}
    return {"X-aws-ec2-metadata-token": token} if token.isascii() and token.isprintable() and token else {}
