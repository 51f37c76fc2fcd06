"""Istio's text format, read back into its fields."""

from pathlib import Path

from pilot_agent.demo.access_log import parse, read

LINE = (
    '[2026-11-27T10:22:16.294Z] "GET /hostname HTTP/1.1" 503 UF,URX reset{x} - "TLS_error: expired" 0 10 1 - "-" '
    '"curl/7.88.1 with words" "e7b95d1a" "httpbin:8000" "[fd00::11]:80" inbound|80|| [::6]:55492 [fd00::11]:80 '
    "[fd00::10]:53598 outbound_.8000_._.httpbin.demo default"
)


def test_a_line_is_told_apart_into_its_fields() -> None:
    line = parse(LINE)
    assert line is not None
    assert line.text == LINE
    assert (line.method, line.path, line.response_code, line.response_flags) == ("GET", "/hostname", "503", "UF,URX")
    assert line.upstream_transport_failure_reason == "TLS_error: expired"
    assert (line.request_id, line.authority) == ("e7b95d1a", "httpbin:8000")
    assert (line.upstream_host, line.upstream_cluster) == ("[fd00::11]:80", "inbound|80||")
    assert line.upstream_local_address == "[::6]:55492"
    assert line.downstream_local_address == "[fd00::11]:80"
    assert line.downstream_remote_address == "[fd00::10]:53598"
    assert (line.requested_server_name, line.route_name) == ("outbound_.8000_._.httpbin.demo", "default")


def test_a_file_is_read_up_to_its_last_whole_line_and_of_one_format(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    assert read(file) == []
    file.write_text(f"{LINE}\nsomething else\n{LINE}\n{LINE[:-3]}")
    assert [line.text for line in read(file)] == [LINE, LINE]
