"""Which cloud's virtual machine this is, by what its firmware says: a few small files, no network."""

from pathlib import Path

DMI = Path("/sys/class/dmi/id")

AZURE_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"
"""In the chassis of every Azure machine; other machines by Microsoft (Hyper-V, a Surface) have another one."""


def recognise(dmi: Path = DMI) -> str:
    """`aws`, `azure` or `gcp`; empty for a machine that is none of them, or has no DMI to read."""
    vendor = _read(dmi, "sys_vendor")
    if vendor == "Amazon EC2" or _read(dmi, "board_vendor") == "Amazon EC2":
        return "aws"
    if any("amazon" in _read(dmi, name) for name in ("product_version", "bios_version")):
        return "aws"  # instances on Xen, whose vendor is Xen
    if vendor == "Microsoft Corporation" and _read(dmi, "chassis_asset_tag") in ("", AZURE_ASSET_TAG):
        return "azure"
    # Not the vendor: that of a Chromebook is Google, too.
    return "gcp" if _read(dmi, "product_name") in ("Google", "Google Compute Engine") else ""


def _read(dmi: Path, name: str) -> str:
    try:
        return (dmi / name).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
