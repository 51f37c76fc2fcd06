"""Every subcommand as data: names, help, flags, words, and which module runs it.

Imports none of them. `line` finds and checks a command line by this table, `main` runs it, `root` shows its help and
completes it, `collateral` documents it.
"""

from typing import NamedTuple

from pilot_agent.commands.flags import LOGGING_FLAGS, Flag
from pilot_agent.commands.iptables_flags import EXPLAIN_FLAGS, IPTABLES_FLAGS
from pilot_agent.commands.view_flags import VIEW_FLAGS
from pilot_agent.values import Duration


class Words(NamedTuple):
    """Positional arguments: `usage` as the help shows them, and how many there may be; `most` None is no bound."""

    usage: str = ""
    least: int = 0
    most: int | None = 0

    @property
    def choices(self) -> tuple[str, ...]:
        """What the first word may be, where `usage` lists it: `a|b`, or `[a|b]` where it may be missing."""
        first = self.usage.partition(" ")[0].strip("[]")
        return tuple(first.split("|")) if "|" in first else ()


class Command(NamedTuple):
    """`pilot-agent <name>`; `run(parsed) -> int` in the module of that name, or of `module`, runs it.

    `help` is in paragraphs; one that begins with a line of \\b keeps its lines. It is found under its `aliases` too.
    """

    name: str
    summary: str
    help: str
    flags: tuple[Flag, ...] = ()
    words: Words = Words()
    module: str = ""
    aliases: tuple[str, ...] = ()
    takes_proxy_flags: bool = False
    ignores_unknown_flags: bool = False
    is_hidden: bool = False

    @property
    def reference(self) -> str:
        """Where its function is, as module:function."""
        return f"pilot_agent.commands.{self.module or self.name}:run"

    def all_flags(self) -> tuple[Flag, ...]:
        """Its own, those of `proxy` where it takes them, and the logging flags."""
        if not self.takes_proxy_flags:
            return (*self.flags, *LOGGING_FLAGS)
        from pilot_agent.commands.proxy_flags import PROXY_FLAGS  # imports the settings

        return (*self.flags, *PROXY_FLAGS, *LOGGING_FLAGS)


ROLE = Words("[sidecar|router|waypoint]", most=None)
"""More words are ignored, as Istio's agent does."""

COMMANDS = (
    Command(
        "proxy",
        "Run Envoy as the proxy of this pod, VM or directory.",
        """
Run Envoy: bootstrap it, restart it, answer readiness and metrics on the status port, drain it.

Without --configDir the configuration comes from istiod. Unknown flags are ignored, as Istio's agent does. Ctrl-C
or SIGTERM drains Envoy and ends it.
""",
        words=ROLE,
        takes_proxy_flags=True,
        ignores_unknown_flags=True,
    ),
    Command(
        "wait",
        "Wait until the proxy is ready.",
        """
Wait until the proxy is ready.

Each new reason why it is not is logged once, with the gate that is closed. While nobody answers, the agent's own port
is asked for the reason. Fails with 255 and the last reason when the time is over.
""",
        (
            Flag("timeoutSeconds", "timeout", 60, "Give up after so many seconds (default 60); 0 asks once", least=0),
            Flag(
                "requestTimeoutMillis",
                "request_timeout",
                500,
                "How long one request may take, in milliseconds",
                least=1,
            ),
            Flag(
                "periodMillis",
                "period",
                500,
                "Pause between two requests, in milliseconds (default 500). The first is made at once",
                least=1,
            ),
            Flag(
                "url", "url", "http://localhost:15021/healthz/ready", "What to ask; ready is status 200", metavar="URL"
            ),
            Flag(
                "statusPort",
                "status_port",
                15020,
                "The agent's port on the same host, asked for the reason while nobody answers there; 0 asks nobody",
                least=0,
            ),
        ),
    ),
    Command(
        "request",
        "Make one HTTP request to the agent or to Envoy's admin interface.",
        """
Make one HTTP request to http://localhost:<debug-port>/<path> and print the answer's body.

Fails with 255 for a status above 399, 404 excepted. Redirects are followed. There are 60 seconds for all of it.
""",
        (
            Flag(
                "debug-port",
                "debug_port",
                15000,
                "Port to send the request to: 15000 Envoy's admin interface, 15020 the agent, 15021 readiness, 15004",
            ),
        ),
        Words("METHOD PATH [BODY]", least=2, most=None),
    ),
    Command(
        "status",
        "Show the agent, its Envoy and what is wrong, on one screen.",
        """
Ask the running agent for its readiness with every gate, Envoy's epochs and restarts, listeners, certificates,
configuration and last errors. Works in an image without a shell: run it with exec.
""",
        (
            Flag("json", "wants_json", False, "Print the facts as JSON, for programs"),
            Flag("port", "port", 15020, "The agent's port", least=1),
        ),
    ),
    Command(
        "proxy-config",
        "Show what Envoy is configured to do: listeners, routes, clusters, endpoints, secrets.",
        """
Show a view of the running Envoy's configuration, or of a file with its /config_dump, in the tables of istioctl
proxy-config. Short: pc, and l, r, c, ep, s, b, a for the views.

endpoints asks Envoy for /clusters?format=json, where it says how they are; a file may be either. bootstrap prints JSON
unless -o says otherwise. A private key is never printed.

log shows Envoy's loggers with their levels, after --level or --reset has changed them.

\b
The listener that all inbound connections come to, the clusters of a service, a file, and more of what HTTP does:
  pilot-agent proxy-config listeners --port 15006
  pilot-agent pc clusters --fqdn reviews --direction outbound -o json
  pilot-agent pc routes --file config_dump.json --name 8000
  pilot-agent pc log --level warning,http:debug
""",
        VIEW_FLAGS,
        Words("all|bootstrap|clusters|endpoints|listeners|log|routes|secrets", least=1, most=1),
        module="proxy_config",
        aliases=("pc",),
    ),
    Command(
        "drain",
        "Drain Envoy, and wait until its connections are gone.",
        """
Ask the running agent to drain Envoy: answers tell clients to close their connections, listeners stay open.

With --wait it returns when no connection is left, or fails with 255 and their number when the time is over; give a
preStop hook fewer seconds than the pod's grace period has. Connections to readiness and metrics do not count.
""",
        (
            Flag("wait", "wait", False, "Wait until no connection is left"),
            Flag("timeoutSeconds", "timeout", 30, "With --wait, give up after so many seconds", least=0),
            Flag("statusPort", "status_port", 15020, "The agent's port", least=1),
            Flag(
                "adminPort",
                "admin_port",
                15000,
                "Port of Envoy's admin interface, which knows its connections",
                least=1,
            ),
        ),
    ),
    Command(
        "bootstrap",
        "Print the bootstrap that proxy would give to Envoy, or check it.",
        """
Print the bootstrap document that proxy with the same flags and environment would give to Envoy.

Nothing is written and no port is taken. Warnings go to standard error. A customConfigFile is shown as it is. The
document may carry secrets of your proxyMetadata or templates: it is what Envoy gets.
""",
        (
            Flag("output", "output", "json", "Print as json or yaml", choices=("json", "yaml"), short="o"),
            Flag(
                "check",
                "check",
                False,
                "Don't print it: have Envoy validate it, from a temporary file; 255 and Envoy's words when it refuses",
            ),
        ),
        ROLE,
        takes_proxy_flags=True,
    ),
    Command(
        "config",
        "Print the effective settings, each with its source.",
        """
Print the settings that proxy with the same flags and environment would have, and where each comes from.

Settings that can't be used are the same error as there. Secrets are hidden.
""",
        (
            Flag("output", "output", "table", "Print as table or json", choices=("table", "json"), short="o"),
            Flag("strict", "strict", False, "Fail with 255, after printing everything, when there is a warning"),
            Flag("all", "all", False, "Show fields and variables that nobody set, too"),
        ),
        ROLE,
        takes_proxy_flags=True,
    ),
    Command(
        "ca",
        "Make a CA for development, and certificates of it.",
        """
Make a small CA in a directory, so that proxies on this machine can speak mTLS. It is for development: its key lies
there as a file, and whoever can read it can be any workload.

init makes the CA: ca-key.pem and ca-cert.pem. One that is there is not overwritten.

issue makes a key and a certificate for spiffe://<trust domain>/ns/<namespace>/sa/<service account>, and writes
key.pem, cert-chain.pem and root-cert.pem, all or none, over those that are there. A proxy with --caDir needs no
issue: the agent asks the CA itself, and again before a certificate ends.

show tells what the certificates of the CA say; with a PATH those of that directory or PEM file, whether the key
beside them fits, and whether the root beside them verifies them.

\b
A CA, and the certificate of a workload where the agent looks for it:
  pilot-agent ca init
  pilot-agent ca issue --namespace demo --serviceAccount hello
  pilot-agent ca show ./etc/certs

\b
A proxy that asks the CA itself:
  pilot-agent proxy --configDir mesh --caDir ./etc/istio/ca
""",
        (
            Flag("directory", "directory", "./etc/istio/ca", "The CA's directory", metavar="DIR"),
            Flag(
                "trustDomain",
                "trust_domain",
                "",
                "init: the CA's trust domain (default cluster.local); issue: the certificate's (default the CA's)",
                metavar="NAME",
            ),
            Flag("namespace", "namespace", "default", "issue: the workload's namespace", metavar="NAME"),
            Flag("serviceAccount", "service_account", "default", "issue: its service account", metavar="NAME"),
            Flag(
                "output",
                "output",
                "./etc/certs",
                "issue: write key and certificates into this directory (default ./etc/certs, where the agent looks)",
                metavar="DIR",
            ),
            Flag(
                "ttl",
                "ttl",
                Duration.of(24 * 3600),
                "issue: how long the certificate is valid, if the CA is (default 24h); init: the CA (default 87600h)",
            ),
            Flag(
                "keyType",
                "key_type",
                "p256",
                "issue: the kind of key, ECDSA on that curve or RSA of so many bits",
                choices=("p256", "p384", "rsa2048", "rsa4096"),
            ),
            Flag("json", "wants_json", False, "show: print the facts as JSON, for programs"),
        ),
        Words("init|issue|show [PATH]", least=1, most=2),
    ),
    Command(
        "demo",
        "Show the path of one request between two pods, and what their agents do.",
        """
Make two pods on this machine, sleep and httpbin, each with an agent, an Envoy and a certificate of a CA of its own;
ask httpbin from sleep, and show the hops as they happened. Then: a rule changed live, an Envoy killed under load,
an expired certificate. Everything is taken away at the end, also after Ctrl-C.

As root the pods are network namespaces joined by a veth, with rules of istio-iptables, and REDIRECT is shown beside
TPROXY. Else, or where namespaces can't be made, they share this machine's loopback.
""",
        (
            Flag("unprivileged", "unprivileged", False, "Use this machine's loopback as root, too"),
            Flag(
                "mode",
                "mode",
                "both",
                "How httpbin's traffic is captured, in network namespaces",
                choices=("both", "redirect", "tproxy"),
            ),
            Flag("step", "step", False, "Wait for Enter between the steps"),
            Flag("keep", "keep", False, "Leave the pods running at the end, to look around, until Ctrl-C"),
        ),
    ),
    Command(
        "istio-iptables",
        "Capture this network namespace's traffic for Envoy.",
        """
Make the iptables or nftables rules that send a pod's traffic through Envoy, as Istio's init container does.

Whatever rules of an earlier run are there, with whatever flags, in whichever back end: they are brought to the wanted
ones, and a second run changes nothing. Needs root and NET_ADMIN.

\b
  plan     show what a run with these flags would change, and change nothing
  status   say whether the rules that are there are the ones of these flags, and show their chains with counters in
           the order a packet meets them; exit code 2 when they are not
  explain  say which rule decides about a packet, and where it lands

Every flag can be given as a variable: its name in upper case, with _ for -.
""",
        (*IPTABLES_FLAGS, *EXPLAIN_FLAGS),
        Words("[plan|status|explain]", most=None),
        module="istio_iptables",
    ),
    Command(
        "version",
        "Print what this build is.",
        "Print what this build is.",
        (
            Flag("short", "short", False, "Print only the version number", short="s"),
            Flag(
                "output",
                "output",
                "",
                "Print as yaml or json (default: one line of text)",
                choices=("yaml", "json"),
                short="o",
            ),
        ),
    ),
    Command(
        "completion",
        "Print the completion script of a shell.",
        """
Print the completion script of a shell.

\b
bash (4.4 or later), for this session, and for all later ones:
  source <(pilot-agent completion bash)
  pilot-agent completion bash > ~/.local/share/bash-completion/completions/pilot-agent

\b
zsh, in a directory of $fpath, before compinit runs:
  pilot-agent completion zsh > "${fpath[1]}/_pilot-agent"

\b
fish:
  pilot-agent completion fish > ~/.config/fish/completions/pilot-agent.fish

\b
PowerShell, for this session; a line of $PROFILE does it for all later ones:
  pilot-agent completion powershell | Out-String | Invoke-Expression
""",
        words=Words("bash|zsh|fish|powershell", most=None),
    ),
    Command(
        "collateral",
        "Write the reference pages of the documentation.",
        "Write the reference pages of flags, variables, fields, metadata and files, made from the code's own tables.",
        (Flag("directory", "directory", "docs/reference", "Directory to write the pages into", metavar="DIR"),),
        is_hidden=True,
    ),
)
"""In the order of the help text."""
