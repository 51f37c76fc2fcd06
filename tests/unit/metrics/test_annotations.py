import json

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.metrics.annotations import AppTarget, parse_annotations


def parse(**fields: object) -> tuple[AppTarget, ...]:
    return parse_annotations(json.dumps(fields), 15020)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [(80, "/metrics")]),
        ({"scrape": "true", "port": "9000", "path": "/m"}, [(9000, "/m")]),
        ({"scrape": "FALSE", "port": "9000"}, [(9000, "/metrics")]),
        ({"port": None, "path": None, "targets": None}, [(80, "/metrics")]),
        ({"path": "m"}, [(80, "/m")]),
        ({"path": "@evil.example/"}, [(80, "/@evil.example/")]),
        ({"scrape": "false"}, []),
        ({"scrape": "false", "port": "15020"}, []),
        ({"port": "8080", "targets": [{"port": "9100"}]}, [(9100, "/metrics")]),
        ({"targets": [{"port": "9100", "path": "/a"}, {"port": "9200"}]}, [(9100, "/a"), (9200, "/metrics")]),
        ({"targets": [{"port": "9100"}, {"port": "9100", "path": "/metrics"}]}, [(9100, "/metrics")]),
        ({"targets": []}, [(80, "/metrics")]),
        ({"unknown": 1}, [(80, "/metrics")]),
    ],
)
def test_targets(fields: dict[str, object], expected: list[tuple[int, str]]) -> None:
    assert parse(**fields) == tuple(AppTarget(*target) for target in expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"port": 9000}', "port is 9000; all values are strings"),
        ('{"scrape": false}', "scrape is False"),
        ('{"scrape": "false", "path": 1}', "path is 1"),
        ('{"port": "http"}', "'http' is not a port number"),
        ('{"port": "0"}', "0 is not a port"),
        ('{"port": "65536"}', "65536 is not a port"),
        ('{"targets": {}, "port": "x"}', "'x' is not a port number"),
        ('{"targets": "9000"}', "targets is '9000'"),
        ('{"targets": ["9000"]}', "targets[0]: '9000' is not a JSON object"),
        ('{"targets": [{"port": "9000"}, {"port": 1}]}', "targets[1]: port is 1"),
        ('{"targets": [{"path": "/m"}]}', "targets[0].port: '' is not a port number"),
        ('{"targets": [{"port": "015020"}]}', "15020 belongs to the agent's own metrics"),
        ('{"port": "15090"}', "15090 belongs to Envoy's own metrics"),
    ],
)
def test_refused(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_annotations(text, 15020)
    assert says in str(caught.value)
    assert "ISTIO_PROMETHEUS_ANNOTATIONS" in str(caught.value)


@pytest.mark.parametrize("port", [15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090, 16000])
def test_the_proxys_ports_are_refused_and_say_whose_they_are(port: int) -> None:
    with pytest.raises(SettingsError, match=f"{port} belongs to"):
        parse_annotations(json.dumps({"port": str(port)}), 16000)
