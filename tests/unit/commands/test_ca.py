"""`pilot-agent ca`: the files it leaves, what it prints and never prints, and two workloads that speak mTLS."""

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509

from pilot_agent.commands.ca import FLAGS_OF, KEY_TYPES, _printable
from pilot_agent.commands.line import find
from pilot_agent.commands.main import main
from pilot_agent.commands.table import COMMANDS, Words
from pilot_agent.errors import EXIT_OK, EXIT_SETTINGS
from pilot_agent.files.publish import publish_all
from pilot_agent.identity.certificate import facts_of
from pilot_agent.identity.local_ca import create
from pilot_agent.identity.options import Files
from pilot_agent.settings.paths import LEGACY_CERTS_DIRECTORY
from tests.support.authority import Authority
from tests.support.confidential import MARKER, confide, found_in
from tests.unit.commands.runner import Ended, run

Call = Callable[..., Ended]


@pytest.fixture
def ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs `pilot-agent ca ...` in an empty directory, in this process. What it prints never holds a key."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*args: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["pilot-agent", "ca", *args])
        code = main()
        for path in (tmp_path / "here").rglob("*"):
            if path.is_file() and MARKER.encode() in path.read_bytes():
                confide(path.read_bytes())
        ended = Ended(code, *capfd.readouterr())
        assert found_in(ended.out + ended.err) == []
        return ended

    return call


def done(ended: Ended) -> list[str]:
    """The lines of a command that succeeded without a warning."""
    assert (ended.code, ended.err) == (EXIT_OK, "")
    return ended.out.splitlines()


def complaint(ended: Ended) -> str:
    """The one line of a command that failed."""
    assert (ended.code, ended.out) == (EXIT_SETTINGS, "")
    assert ended.err.startswith("Error: ") and ended.err.count("\n") == 1
    return ended.err.removeprefix("Error: ").rstrip("\n")


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of each file below."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mode & 0o7777, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def leaf_of(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "cert-chain.pem").read_bytes())


# init


def test_init_makes_a_ca_where_the_others_look_for_it(ca: Call) -> None:
    first, *files = done(ca("init"))
    assert re.fullmatch(
        r"made a CA for development: spiffe://cluster\.local, valid until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first
    )
    assert [line.split()[0] for line in files] == ["etc/istio/ca/ca-cert.pem", "etc/istio/ca/ca-key.pem"]
    made = tree(Path("etc/istio/ca"))
    assert {name: mode for name, (mode, _) in made.items()} == {"ca-cert.pem": 0o644, "ca-key.pem": 0o600}
    facts = facts_of(x509.load_pem_x509_certificate(made["ca-cert.pem"][1]))
    assert facts.lifetime_s == 87600 * 3600 + 120


def test_init_takes_directory_trust_domain_and_lifetime(ca: Call) -> None:
    assert "spiffe://demo.example," in done(ca("init", "--directory=x/y", "--trustDomain", "demo.example"))[0]
    done(ca("init", "--directory", "short", "--ttl=90m"))
    certificate = x509.load_pem_x509_certificate(Path("short/ca-cert.pem").read_bytes())
    assert facts_of(certificate).lifetime_s == 90 * 60 + 120


def test_init_a_second_time_leaves_everything_as_it_was(ca: Call) -> None:
    done(ca("init"))
    before = tree(Path())
    assert complaint(ca("init", "--trustDomain=other")) == (
        "etc/istio/ca/ca-key.pem is there already, and a CA is never overwritten, since nobody would trust what it has "
        "signed: use it, move it away, or give another directory"
    )
    assert tree(Path()) == before


def test_init_where_a_file_is_in_the_way(ca: Call) -> None:
    Path("file").write_bytes(b"mine")
    assert complaint(ca("init", "--directory", "file")).startswith("no CA can be made in file: File exists; give")
    assert tree(Path()) == {"file": (0o644, b"mine")}


# issue


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_issue_writes_what_the_agent_looks_for(ca: Call, umask: int) -> None:
    before = os.umask(umask)
    try:
        done(ca("init"))
        first, *files = done(ca("issue"))
    finally:
        os.umask(before)
    start = r"issued a certificate for spiffe://cluster\.local/ns/default/sa/default \(EC secp256r1\), valid until "
    assert re.match(start, first)
    assert [line.strip() for line in files] == [
        f"etc/certs/{name}" for name in ("key.pem", "cert-chain.pem", "root-cert.pem")
    ]
    made = tree(Path("etc/certs"))
    modes = {name: mode for name, (mode, _) in made.items()}
    assert modes == {"cert-chain.pem": 0o644, "key.pem": 0o600, "root-cert.pem": 0o644}
    assert made["root-cert.pem"][1] == Path("etc/istio/ca/ca-cert.pem").read_bytes()
    assert facts_of(leaf_of(Path("etc/certs"))).lifetime_s == 24 * 3600 + 120
    agent_looks_at = Files.of_directory(Path(LEGACY_CERTS_DIRECTORY)).all
    assert all(path.is_file() for path in agent_looks_at) and len(agent_looks_at) == len(made)


@pytest.mark.parametrize(
    ("key_type", "kind"),
    [("p256", "EC secp256r1"), ("p384", "EC secp384r1"), ("rsa2048", "RSA 2048"), ("rsa4096", "RSA 4096")],
)
def test_issue_makes_the_kind_of_key_that_was_asked_for(ca: Call, key_type: str, kind: str) -> None:
    done(ca("init"))
    assert f"({kind})" in done(ca("issue", "--keyType", key_type))[0]
    assert facts_of(leaf_of(Path("etc/certs"))).key == kind
    assert next(flag.choices for flag in find("ca").flags if flag.name == "keyType") == tuple(KEY_TYPES)


def test_issue_names_namespace_account_and_the_cas_own_trust_domain(ca: Call) -> None:
    done(ca("init", "--trustDomain=demo.example"))
    done(ca("issue", "--namespace=shop", "--serviceAccount", "cart", "--output=cart"))
    assert facts_of(leaf_of(Path("cart"))).spiffe_id == "spiffe://demo.example/ns/shop/sa/cart"
    done(ca("issue", "--trustDomain=demo.example", "--output=same"))


def test_issue_of_another_trust_domain_is_refused_and_writes_nothing(ca: Call) -> None:
    done(ca("init"))
    assert complaint(ca("issue", "--trustDomain=elsewhere")).startswith(
        "the CA in etc/istio/ca refuses the signing request: it is for spiffe://elsewhere/ns/default/sa/default, and "
        "the trust domain of this CA is cluster.local: "
    )
    assert not Path("etc/certs").exists()


def test_issue_replaces_a_set_as_a_whole(ca: Call) -> None:
    done(ca("init"))
    done(ca("issue", "--serviceAccount=first"))
    before = tree(Path("etc/certs"))
    done(ca("issue", "--serviceAccount=second"))
    after = tree(Path("etc/certs"))
    assert before.keys() == after.keys()
    assert [name for name in after if after[name] != before[name]] == ["cert-chain.pem", "key.pem"]


@pytest.mark.parametrize("name", ["key.pem", "cert-chain.pem", "root-cert.pem"])
def test_issue_writes_all_or_nothing(ca: Call, name: str) -> None:
    done(ca("init"))
    done(ca("issue"))
    Path("etc/certs", name).unlink()
    Path("etc/certs", name).mkdir()
    before = tree(Path())
    assert complaint(ca("issue")) == (
        "--output etc/certs: Is a directory; give a directory whose key.pem, cert-chain.pem and root-cert.pem can be "
        "written"
    )
    assert tree(Path()) == before


@pytest.mark.parametrize("output", ["file", "file/below", "/proc/nosuch"])
def test_issue_into_what_is_no_directory_is_one_line(ca: Call, output: str) -> None:
    done(ca("init"))
    Path("file").write_bytes(b"mine")
    before = tree(Path())
    assert complaint(ca("issue", "--output", output)).startswith(f"--output {output}: ")
    assert tree(Path()) == before


def test_issue_says_when_the_ca_ends_first(ca: Call) -> None:
    done(ca("init", "--ttl=1h"))
    ended = ca("issue")
    end = re.findall(r"valid until (\S+)", ended.out)[0]
    assert ended.code == EXIT_OK
    assert ended.err == f"Warning: the certificate ends with its CA, at {end}, before --ttl is over\n"


def test_issue_with_a_key_of_the_ca_that_others_can_read_is_a_warning(ca: Call) -> None:
    done(ca("init"))
    Path("etc/istio/ca/ca-key.pem").chmod(0o604)
    ended = ca("issue")
    assert (ended.code, ended.err) == (
        EXIT_OK,
        "Warning: etc/istio/ca/ca-key.pem can be read by others (mode 0604): make it 0600\n",
    )


def test_issue_without_a_ca_says_how_to_make_one(ca: Call) -> None:
    text = "there is no CA in etc/istio/ca: ca-cert.pem is missing; make one with `pilot-agent ca init`"
    assert complaint(ca("issue")) == text
    assert tree(Path()) == {}


def test_issue_of_an_expired_ca_is_refused(ca: Call) -> None:
    create(Path("old"), "cluster.local", 60, 1_000_000_000, publish_all)
    assert complaint(ca("issue", "--directory=old")).startswith(
        "the CA in old expired at 2001-09-09T01:47:40Z: move it"
    )
    assert not Path("etc").exists()


def test_issue_with_broken_files_is_one_line(ca: Call) -> None:
    done(ca("init"))
    Path("etc/istio/ca/ca-key.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0IHN0dWZm\n")
    assert complaint(ca("issue")) == (
        "the private key of the CA in etc/istio/ca can't be read: it must be PEM without a password"
    )


# mTLS


def context(side: int, directory: Path) -> ssl.SSLContext:
    """TLS that gives the certificate of that directory, and wants one that its root verifies, strictly."""
    made = ssl.SSLContext(side)
    made.check_hostname = False  # a SPIFFE ID is no host
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_cert_chain(directory / "cert-chain.pem", directory / "key.pem")
    made.load_verify_locations(directory / "root-cert.pem")
    return made


def handshake(client: Path, server: Path) -> tuple[str, str]:
    """Whom the client and the server see, by SPIFFE ID. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = context(ssl.PROTOCOL_TLS_CLIENT, client).wrap_bio(to_client, to_server)
    other = context(ssl.PROTOCOL_TLS_SERVER, server).wrap_bio(to_server, to_client, server_side=True)
    waiting = [one, other]
    for _ in range(10):
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert waiting == []
    one.write(b"hello")
    assert other.read() == b"hello"
    return seen_by(one), seen_by(other)


def seen_by(side: ssl.SSLObject) -> str:
    certificate = side.getpeercert()
    assert certificate is not None
    names = cast("tuple[tuple[str, str], ...]", certificate["subjectAltName"])
    assert [kind for kind, _ in names] == ["URI"]
    return names[0][1]


@pytest.mark.parametrize("key_type", ["p256", "p384", "rsa2048"])
def test_two_workloads_speak_mtls_and_know_each_other(ca: Call, key_type: str) -> None:
    done(ca("init"))
    for name in ("hello", "world"):
        done(ca("issue", f"--serviceAccount={name}", f"--output={name}", f"--keyType={key_type}"))
    prefix = "spiffe://cluster.local/ns/default/sa"
    assert handshake(Path("hello"), Path("world")) == (f"{prefix}/world", f"{prefix}/hello")


def test_a_workload_of_another_ca_of_the_same_name_is_refused(ca: Call) -> None:
    for name in ("here", "there"):
        done(ca("init", f"--directory={name}/ca"))
        done(ca("issue", f"--directory={name}/ca", f"--output={name}"))
    for client, server in (("here", "there"), ("there", "here")):
        with pytest.raises(ssl.SSLError, match="certificate verify failed"):
            handshake(Path(client), Path(server))


# show


def test_show_of_the_ca(ca: Call) -> None:
    done(ca("init"))
    heading, *rows = done(ca("show"))
    assert heading == "etc/istio/ca/ca-cert.pem (root CA)"
    told = {row[2:12].strip(): row[14:] for row in rows}
    certificate = x509.load_pem_x509_certificate(Path("etc/istio/ca/ca-cert.pem").read_bytes())
    facts = facts_of(certificate)
    assert told["subject"] == facts.subject
    assert (told["issuer"], told["SPIFFE ID"]) == ("itself", "spiffe://cluster.local")
    assert (told["serial"], told["SHA-256"], told["key"]) == (facts.serial, facts.fingerprint, "EC secp256r1")
    assert re.fullmatch(r"\S+Z \(3649d 23h left\)", told["not after"])
    assert told["key file"] == "ca-key.pem fits"


def test_show_of_a_workload_and_of_one_file(ca: Call) -> None:
    done(ca("init"))
    done(ca("issue"))
    text = "\n".join(done(ca("show", "etc/certs")))
    assert text.startswith("etc/certs/cert-chain.pem (workload)\n  subject     -\n")
    assert (
        "\n  key file    key.pem fits\n  root file   root-cert.pem verifies it\n\netc/certs/root-cert.pem (root CA)"
        in text
    )
    assert done(ca("show", "etc/certs/cert-chain.pem")) == text.split("\n\n")[0].splitlines()


def test_show_as_json_has_the_facts_of_the_certificates_page(ca: Call) -> None:
    done(ca("init"))
    done(ca("issue"))
    leaf, root = json.loads("\n".join(done(ca("show", "--json", "etc/certs"))))["certificates"]
    facts = facts_of(leaf_of(Path("etc/certs")))
    for name in ("subject", "issuer", "spiffe_id", "serial", "key", "fingerprint"):
        assert leaf[name] == getattr(facts, name)
    assert 0 < leaf["seconds_left"] <= 24 * 3600
    assert leaf["key_file"] == {"path": "etc/certs/key.pem", "fits": True, "problem": None, "warnings": []}
    assert leaf["root_file"]["verifies"] is True
    assert (root["is_ca"], root["is_own_root"], root["key_file"], root["root_file"]) == (True, True, None, None)


def test_show_of_what_is_wrong_shows_it_and_is_no_failure(ca: Call) -> None:
    done(ca("init"))
    done(ca("issue", "--output=one"))
    done(ca("issue", "--output=two"))
    Path("one/key.pem").write_bytes(Path("two/key.pem").read_bytes())
    Path("one/root-cert.pem").write_text(Authority("another").pem)
    text = "\n".join(done(ca("show", "one")))
    assert "\n  key file    key.pem does not fit\n" in text
    assert "\n  root file   root-cert.pem does not verify it: no root certificate we have issued O=pilot-agent" in text
    leaf = json.loads("\n".join(done(ca("show", "one", "--json"))))["certificates"][0]
    assert (leaf["key_file"]["fits"], leaf["key_file"]["problem"]) == (False, "does not fit")


def test_show_tells_the_past_and_the_future(ca: Call) -> None:
    authority = Authority()
    Path("past.pem").write_text(authority.pair("spiffe://a/b", lifetime_s=60, not_before=1_000_000_000).chain)
    Path("future.pem").write_text(authority.pair("spiffe://a/b", lifetime_s=60, not_before=9_000_000_000).chain)
    assert re.search(r"  not after   2001-09-09T01:47:40Z \(EXPIRED \d+d \d+h ago\)\n", ca("show", "past.pem").out)
    assert re.search(r"  not before  2255\S+Z \(NOT VALID YET: in \d+d \d+h\)\n", ca("show", "future.pem").out)
    past = json.loads(ca("show", "past.pem", "--json").out)["certificates"][0]
    assert past["seconds_left"] < 0


def test_show_warns_of_a_key_that_others_can_read_beside_the_facts(ca: Call) -> None:
    done(ca("init"))
    Path("etc/istio/ca/ca-key.pem").chmod(0o644)
    ended = ca("show")
    warning = "etc/istio/ca/ca-key.pem can be read by others (mode 0644): make it 0600"
    assert (ended.code, ended.err) == (EXIT_OK, f"Warning: {warning}\n")
    assert "  key file    ca-key.pem fits" in ended.out
    as_json = ca("show", "--json")
    assert as_json.err == "" and json.loads(as_json.out)["certificates"][0]["key_file"]["warnings"] == [warning]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "etc/istio/ca is not there: give a PEM file, or a directory"),
        (("nowhere",), "nowhere is not there: give a PEM file, or a directory"),
        (
            (".",),
            ". has none of ca-cert.pem, cert-chain.pem, root-cert.pem: give a directory that has, or a PEM file; ",
        ),
        (("key.pem",), "key.pem has no certificate in it (11 bytes)"),
    ],
)
def test_show_of_what_holds_no_certificate(ca: Call, args: tuple[str, ...], text: str) -> None:
    Path("key.pem").write_bytes(b"not for you")
    assert complaint(ca("show", *args)).startswith(text)


def test_somebody_elses_certificate_does_not_steer_the_terminal(ca: Call) -> None:
    Path("odd.pem").write_text(Authority("\x1b[31mred\u202e").pem)
    ended = ca("show", "odd.pem")
    assert "\x1b" not in ended.out and "\u202e" not in ended.out
    assert r"\x1b[31mred\u202e" in ended.out
    assert _printable("köln") == "köln"


# The command line


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "missing argument 'init|issue|show'"),
        (("isue",), 'unknown action "isue" for "pilot-agent ca"; did you mean "issue"?'),
        (("rm",), 'unknown action "rm" for "pilot-agent ca"; use one of init, issue, show'),
        (("init", "there"), "got unexpected extra argument (there): init takes flags only"),
        (("issue", "there"), "got unexpected extra argument (there): issue takes flags only"),
        (("show", "a", "b"), "got unexpected extra argument (b)"),
        (("show", "a", "--directory=b"), "--directory and a PATH are two answers to what to show: give one of them"),
        (("show", "--ttl=1h"), "--ttl is for init and issue, not for show"),
        (("init", "--output=x"), "--output is for issue, not for init"),
        (("init", "--no-json"), "--json is for show, not for init"),
        (("issue", "--json"), "--json is for show, not for issue"),
        (("issue", "--ttl=0"), "invalid value for --ttl: 0s is no lifetime: a second is the least"),
        (("init", "--ttl=999ms"), "invalid value for --ttl: 0.999s is no lifetime: a second is the least"),
        (("init", "--ttl=-1h"), "invalid value for --ttl: '-1h' is negative"),
        (("init", "--ttl=24"), "invalid value for --ttl: '24' is not a duration: write a number with a unit"),
        (("init", "--trustDomain="), "'' is no trust domain: use 1 to 255 lower-case letters"),
        (("issue", "--keyType=dsa"), "invalid value for --keyType: 'dsa' is not one of p256, p384, rsa2048, rsa4096"),
        (("init", "--trustDomian=a"), 'unknown flag: --trustDomian; did you mean "--trustDomain"?'),
        (("init", "--log_output_level=loud"), "--log_output_level: unknown level 'loud'"),
    ],
)
def test_what_the_caller_got_wrong_is_one_line_and_makes_nothing(ca: Call, args: tuple[str, ...], text: str) -> None:
    assert complaint(ca(*args)).startswith(text)
    assert tree(Path()) == {}


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("namespace", "", "invalid value for --namespace: '' is no name of Kubernetes"),
        ("namespace", "a/sa/b", "invalid value for --namespace: 'a/sa/b' is no name of Kubernetes"),
        ("serviceAccount", "../x", "invalid value for --serviceAccount: '../x' is no name of Kubernetes"),
        ("serviceAccount", "..", "'spiffe://cluster.local/ns/default/sa/..' is no SPIFFE ID of a workload"),
        ("namespace", "a\nb", r"'spiffe://cluster.local/ns/a\nb/sa/default' is no SPIFFE ID of a workload"),
        ("namespace", "köln", "'spiffe://cluster.local/ns/köln/sa/default' is no SPIFFE ID of a workload"),
        ("trustDomain", "", "'spiffe:///ns/default/sa/default' is no SPIFFE ID of a workload"),
    ],
)
def test_a_name_that_is_none_makes_no_certificate(ca: Call, flag: str, value: str, text: str) -> None:
    done(ca("init"))
    assert complaint(ca("issue", f"--{flag}={value}")).startswith(text)
    assert not Path("etc/certs").exists()


def test_every_flag_is_of_some_action() -> None:
    assert {flag.attribute for flag in find("ca").flags} == set().union(*FLAGS_OF.values())


def test_the_default_of_output_is_where_the_agent_looks() -> None:
    assert {flag.default for flag in find("ca").flags if flag.attribute == "output"} == {LEGACY_CERTS_DIRECTORY}


def test_as_a_process_it_ends_with_the_codes_of_all_commands(tmp_path: Path) -> None:
    directory = f"--directory={tmp_path / 'ca'}"
    assert [run("ca", "init", directory).code for _ in range(2)] == [EXIT_OK, EXIT_SETTINGS]
    issued = run("ca", "issue", directory, f"--output={tmp_path / 'certs'}")
    shown = run("ca", "show", str(tmp_path / "certs"))
    assert (issued.code, shown.code) == (EXIT_OK, EXIT_OK)
    for path in (tmp_path / "ca" / "ca-key.pem", tmp_path / "certs" / "key.pem"):
        confide(path.read_bytes())
    assert found_in(issued.out + issued.err + shown.out + shown.err) == []


def test_a_letter_the_locale_lacks_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "odd.pem").write_text(Authority("köln").pem)
    ended = run("ca", "show", str(tmp_path / "odd.pem"), env={"PYTHONIOENCODING": "ascii"})
    assert (ended.code, "k\\xf6ln" in ended.out) == (EXIT_OK, True)


# Completion


def completed(*words: str) -> list[str]:
    """What a shell would be offered for the last word."""
    asked = {"COMP_WORDS": " ".join(("pilot-agent", *words)), "COMP_CWORD": words[-1]}
    ended = run(env={"_PILOT_AGENT_COMPLETE": "fish_complete", **asked})
    assert (ended.code, ended.err) == (EXIT_OK, "")
    return [line.removeprefix("plain,").split("\t")[0] for line in ended.out.split("\n") if line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ca", ""), ["init", "issue", "show"]),
        (("ca", "i"), ["init", "issue"]),
        (("ca", "--directory", "x", "s"), ["show"]),
        (("ca", "show", "i"), []),
        (("ca", "issue", "--keyType", "r"), ["rsa2048", "rsa4096"]),
        (("ca", "issue", "--trust"), ["--trustDomain"]),
        (("proxy", "r"), ["router"]),
        (("completion", ""), ["bash", "zsh", "fish", "powershell"]),
        (("request", ""), []),
    ],
)
def test_the_shell_completes_actions_and_what_else_the_table_lists(words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(*words) == offered


@pytest.mark.parametrize(
    ("usage", "choices"),
    [
        ("", ()),
        ("METHOD PATH [BODY]", ()),
        ("a|b [PATH]", ("a", "b")),
        ("[a|b]", ("a", "b")),
        ("PATH [a|b]", ()),
    ],
)
def test_the_choices_of_the_first_word_are_those_of_the_usage(usage: str, choices: tuple[str, ...]) -> None:
    assert Words(usage).choices == choices
    assert all(isinstance(command.words.choices, tuple) for command in COMMANDS)


@pytest.mark.parametrize(
    ("args", "environment"),
    [
        (["ca", "--help"], {}),
        (["ca"], {}),
        (["ca", "isue"], {}),
        (["ca", "init", "--json"], {}),
        ([], {"_PILOT_AGENT_COMPLETE": "fish_complete", "COMP_WORDS": "pilot-agent ca ", "COMP_CWORD": ""}),
    ],
)
def test_what_needs_no_certificate_does_not_load_the_library_for_them(
    args: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    script = (
        f"import sys; sys.argv[1:] = {args!r}\n"
        "from pilot_agent.commands.main import main; main()\n"
        f"print('cryptography' in sys.modules, file=open({str(tmp_path / 'out')!r}, 'w'))"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=os.environ | environment, capture_output=True, check=True
    )
    assert (tmp_path / "out").read_text().strip() == "False"
