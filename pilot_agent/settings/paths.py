"""Every file and socket the agent reads, writes or looks for, in one table; modules take their constants from here.

Paths that begin with `./` are relative to the working directory, which is `/` in an image. The table is also what the
documentation of files is made from.
"""

from typing import NamedTuple

LABELS_FILE = "./etc/istio/pod/labels"
ANNOTATIONS_FILE = "./etc/istio/pod/annotations"
WORKLOAD_SDS_DIRECTORY = "./var/run/secrets/workload-spiffe-uds"
FILES_SDS_SOCKET = "./var/run/secrets/credential-uds/files-socket"
WORKLOAD_CERTS_DIRECTORY = "./var/run/secrets/workload-spiffe-credentials"
LEGACY_CERTS_DIRECTORY = "./etc/certs"
CA_ROOT_FILE = "./var/run/secrets/istio/root-cert.pem"
CRL_FILE = "/var/run/secrets/istio/crl/ca-crl.pem"
TOKEN_FILE = "./var/run/secrets/tokens/istio-token"  # noqa: S105 - a file's name
CREDENTIAL_SDS_SOCKET = "./var/run/secrets/credential-uds/socket"
BOOTSTRAP_NAME = "envoy-rev"
BASE_ID_NAME = "envoy-base-id"
LIGHTSTEP_TOKEN_NAME = "lightstep_access_token.txt"  # noqa: S105 - a file's name
XDS_DIRECTORY = "xds"
SDS_DIRECTORY = "sds"
XDS_SOCKET_NAME = "XDS"


class File(NamedTuple):
    """`use` is read, watched, written, socket or looked for; `mode` is what a written one gets."""

    path: str
    use: str
    mode: str
    what: str


FILES = (
    File("./etc/istio/config/mesh", "read, watched", "", "MeshConfig (--meshConfig); a missing one is no error"),
    File(LABELS_FILE, "read, watched", "", "the pod's labels, from the downward API"),
    File(ANNOTATIONS_FILE, "read, watched", "", "the pod's annotations, from the downward API"),
    File("ISTIO_BOOTSTRAP, proxyBootstrapTemplatePath", "read, watched", "", "a bootstrap template of your own"),
    File("ISTIO_BOOTSTRAP_OVERRIDE", "read, watched", "", "YAML or JSON that Envoy merges over the bootstrap"),
    File("customConfigFile", "read, watched", "", "a finished bootstrap, given to Envoy where it lies"),
    File("--configDir/*.yaml", "read, watched", "", "Istio's YAML of the local mesh; .yml and .json too"),
    File(f"<configPath>/{BOOTSTRAP_NAME}.json", "written", "0644", "the bootstrap; .yaml when a YAML template made it"),
    File(
        f"<configPath>/candidate-{BOOTSTRAP_NAME}.json", "written", "0644", "a changed bootstrap while Envoy checks it"
    ),
    File(f"<configPath>/{BASE_ID_NAME}", "written", "0644", "the base-id Envoy chose for its shared memory"),
    File(
        f"<configPath>/{LIGHTSTEP_TOKEN_NAME}",
        "written",
        "0600",
        "tracing.lightstep.accessToken, for Envoy; owned by Envoy's user",
    ),
    File(f"<configPath>/{XDS_DIRECTORY}/", "written", "0644", "local mode: what Envoy reads as LDS, CDS, RDS and EDS"),
    File("<configPath>/XDS", "socket", "0666", "where Envoy asks for its configuration: the agent's proxy to istiod"),
    File("GRPC_XDS_BOOTSTRAP", "written", "0644", "the bootstrap of gRPC's own xDS client; its directory is made 0700"),
    File(
        f"{WORKLOAD_SDS_DIRECTORY}/<WORKLOAD_IDENTITY_SOCKET_FILE>",
        "socket, looked for",
        "0666",
        "the agent's SDS server; where another (SPIRE) answers, that one is left in place",
    ),
    File(CREDENTIAL_SDS_SOCKET, "looked for", "", "an SDS of gateway credentials; node metadata `credential`"),
    File(
        FILES_SDS_SOCKET, "socket", "0666", "the agent's SDS server beside such a workload SDS: certificates from files"
    ),
    File(
        f"{WORKLOAD_CERTS_DIRECTORY}/{{cert-chain,key,root-cert}}.pem",
        "read, watched",
        "",
        "the workload's identity where all three are there at the start; no CA is asked then",
    ),
    File(
        f"{LEGACY_CERTS_DIRECTORY}/{{cert-chain,key,root-cert}}.pem",
        "read, watched",
        "",
        "`default` and `ROOTCA` while they are there and not empty, before the CA's",
    ),
    File(
        CA_ROOT_FILE,
        "read",
        "",
        "root certificate of istiod (CA_ROOT_CA, XDS_ROOT_CA and PILOT_CERT_PROVIDER name others)",
    ),
    File(TOKEN_FILE, "read", "", "the service account's token; read anew for every call, and looked at each minute"),
    File(CRL_FILE, "read, watched", "", "the CA's revocation list, goes with ROOTCA"),
    File(
        "OUTPUT_CERTS/{key,cert-chain,root-cert}.pem",
        "written",
        "0600",
        "the certificate as files; 0644 where KUBERNETES_SERVICE_HOST is set",
    ),
    File(
        f"<configPath>/{SDS_DIRECTORY}/{{default,ROOTCA}}.json",
        "written",
        "0600",
        "local mode: the certificate as Envoy's file-based SDS; owned by Envoy's user",
    ),
    File("/dev/shm/envoy_shared_memory_<base-id>0", "removed", "", "Envoy's memory for hot restarts, which it leaves"),
    File("/proc/self/cgroup, /sys/fs/cgroup", "read", "", "memory limit, OOM kills, CPU quota and cpuset"),
    File("/sys/class/dmi/id", "read", "", "which cloud this is, when CLOUD_PLATFORM does not say"),
)
