"""Debian's Chromium without a window, driven through its own chromedriver; one browser per test, with nothing kept."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = """
--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --disable-breakpad --disable-extensions
--disable-default-apps --no-default-browser-check --metrics-recording-only --password-store=basic
""".split()

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def browser(*, width: int = 1200, height: int = 1400) -> Iterator["Chrome"]:
    """A window of that many CSS pixels with an empty profile; ended with everything it started."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no browser: apt install chromium chromium-driver")
    pytest.importorskip("selenium", reason="selenium drives the browser: pip install 'pilot-agent[dev]'")
    # A directory of its own with a short name: the browser's socket in it has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as home:
        running = _start(program, driver, home, (width, height))
        try:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            running.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            yield running
        finally:
            running.quit()


def _start(program: str, driver: str, home: str, size: tuple[int, int]) -> "Chrome":
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={home}/profile"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Caches and crash reports do not go into the user's home. Both paths are given: nothing is looked up or loaded.
    environment = {"HOME": home, "XDG_CONFIG_HOME": home, "TMPDIR": home, "PATH": "/usr/bin:/bin", "TZ": "UTC"}
    return Chrome(options, ChromeService(driver, env=environment))


def console(running: "Chrome") -> list[dict[str, Any]]:
    """What the page, or the browser about it, wrote since the last call: dicts with level, source and message."""
    logged: list[dict[str, Any]] = running.get_log("browser")  # type: ignore[no-untyped-call]
    return logged
