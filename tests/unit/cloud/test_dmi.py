"""Clouds by their firmware, and machines that only look like one."""

from pathlib import Path

import pytest

from pilot_agent.cloud.dmi import AZURE_ASSET_TAG, recognise
from tests.unit.cloud.conftest import Machine


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"sys_vendor": "Amazon EC2", "product_name": "m5.large"}, "aws"),
        ({"board_vendor": "Amazon EC2"}, "aws"),
        ({"sys_vendor": "Xen", "product_name": "HVM domU", "product_version": "4.11.amazon"}, "aws"),
        ({"sys_vendor": "Xen", "bios_version": "4.2.amazon"}, "aws"),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": AZURE_ASSET_TAG}, "azure"),
        ({"sys_vendor": "Microsoft Corporation"}, "azure"),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine"}, "gcp"),
        ({"product_name": "Google"}, "gcp"),
        ({"sys_vendor": "Google", "product_name": "Eve"}, ""),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "0001-2222"}, ""),
        ({"sys_vendor": "Xen", "product_name": "HVM domU", "product_version": "4.11"}, ""),
        ({"sys_vendor": "QEMU", "product_name": "Standard PC (Q35 + ICH9, 2009)"}, ""),
        ({"sys_vendor": "LENOVO", "product_name": "21CB"}, ""),
        ({}, ""),
    ],
)
def test_machines(machine: Machine, files: dict[str, str], name: str) -> None:
    assert recognise(machine(**files)) == name


def test_a_machine_without_dmi_is_no_cloud(tmp_path: Path) -> None:
    assert recognise(tmp_path / "missing") == ""


def test_what_cannot_be_read_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "sys_vendor").mkdir()
    (tmp_path / "product_name").write_bytes(b"\xff\xfe")
    assert recognise(tmp_path) == ""
