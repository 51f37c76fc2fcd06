"""`pilot-agent collateral`: the pages hold what the tables hold, in Markdown that renders."""

import re
from pathlib import Path

import pytest

from pilot_agent.commands.collateral import pages
from pilot_agent.commands.flags import LOGGING_FLAGS
from pilot_agent.commands.main import _run as run
from pilot_agent.commands.proxy_flags import PROXY_FLAGS
from pilot_agent.commands.table import COMMANDS
from pilot_agent.errors import AgentError
from pilot_agent.metrics.catalogue import METRICS
from pilot_agent.node.keys import METADATA_KEYS, RAW_KEYS
from pilot_agent.settings.environment import NAMED_META, PREFIXES, VARIABLES
from pilot_agent.settings.paths import FILES
from pilot_agent.settings.schema import MESSAGES, PROXY_CONFIG_FIELDS


def test_every_command_and_flag_has_a_row() -> None:
    text = pages()["flags.md"]
    for command in COMMANDS:
        assert (f"\n## {command.name}\n" in text) is not command.is_hidden
    for flag in (
        *PROXY_FLAGS,
        *LOGGING_FLAGS,
        *(flag for each in COMMANDS if not each.is_hidden for flag in each.flags),
    ):
        assert f"`--{flag.name}` |" in text, flag.name
        assert flag.effect in text


def test_every_variable_is_under_its_part_and_says_whether_it_is_used() -> None:
    sections = dict(re.findall(r"^## (.*?)\n\n(.*?)(?=^## |\Z)", pages()["environment.md"], re.DOTALL | re.MULTILINE))
    for variable in VARIABLES:
        title = f"Part {variable.part}" + ("" if variable.is_used else ": not in this version")
        assert f"| `{variable.name}` |" in sections[title], variable.name
    for prefix in PREFIXES:
        assert f"| `{prefix.name}*` |" in sections["Variables known by their prefix"]
    for name, _ in NAMED_META:
        assert f"| `{name}` |" in sections["Variables known by their prefix"]


def test_every_field_of_the_proxy_config_and_of_its_messages_has_a_row() -> None:
    text = pages()["proxy-config.md"]
    for field in (*PROXY_CONFIG_FIELDS.values(), *(field for fields in MESSAGES.values() for field in fields)):
        assert f"| `{field.name}` |" in text, field.name


def test_every_metadata_key_and_file_has_a_row() -> None:
    text = pages()["metadata.md"]
    for key in (*METADATA_KEYS, *RAW_KEYS):
        assert f"| `{key.name}` | {key.json_type} |" in text
    assert all(file.what.replace("|", "\\|") in pages()["files.md"] for file in FILES)


def test_every_metric_is_under_its_part_and_says_whether_it_is_there() -> None:
    sections = dict(re.findall(r"^## (.*?)\n\n(.*?)(?=^## |\Z)", pages()["metrics.md"], re.DOTALL | re.MULTILINE))
    for metric in METRICS:
        title = metric.part + ("" if metric.is_used else ": not in this version")
        assert f"| `{metric.name}` | {metric.kind} |" in sections[title], metric.name


@pytest.mark.parametrize("name", pages())
def test_links_within_a_page_lead_to_a_heading(name: str) -> None:
    text = pages()[name]
    headings = {title.lower() for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= headings


@pytest.mark.parametrize("name", pages())
def test_rows_of_a_table_have_the_columns_of_its_head(name: str) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", pages()[name], re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_placeholders_are_not_taken_for_html() -> None:
    for text in pages().values():
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        assert re.findall(r"(?<!\\)<\w", prose) == []


def test_it_writes_the_pages_and_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "new" / "reference"
    assert run(["collateral", f"--directory={directory}"]) == 0
    assert capsys.readouterr().out.split() == [str(directory / name) for name in pages()]
    assert {path.name: path.read_text() for path in directory.iterdir()} == pages()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError, match=r"--directory .*/file: .*give a directory"):
        run(["collateral", "--directory", str(tmp_path / "file")])
