"""A real Chromium on the dashboard's pages: what they say, how they look, what they complain of.

Debian's packages chromium and chromium-driver are used as they are installed; selenium drives them.
"""

import base64
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

QUIET = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""No window, and no traffic of its own."""
SECONDS = 90.0
"""How long a page may take on a busy machine."""


class Browser:
    """Chromium with an empty profile, as a context manager.

    Args:
        width: of the window, pixels.
        height: of the window, pixels; a screenshot shows as much.
        mode: "light" or "dark", which pages may follow.

    Raises:
        FileNotFoundError: chromium or chromedriver is not installed.
    """

    def __init__(self, width: int = 1400, height: int = 1400, mode: str = "light") -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = Options()
        options.binary_location = _program("chromium")
        for argument in (*QUIET, f"--window-size={width},{height}", f"--user-data-dir={self._profile.name}"):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # Chromium's own does not work for root
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self._driver = webdriver.Chrome(options=options, service=Service(_program("chromedriver")))
        self._driver.set_page_load_timeout(SECONDS)
        self._driver.set_script_timeout(SECONDS)
        # No argument for the window is as narrow as a telephone.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": mode}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._driver.quit()
        self._profile.cleanup()

    def open(self, address: str) -> None:
        """Goes to an address; what the page loads later is waited for with `wait_for`."""
        self._driver.get(address)

    def text(self) -> str:
        """All text that the page shows now."""
        return str(self.run("return document.body.innerText"))

    def run(self, script: str) -> Any:
        """What a piece of JavaScript returns."""
        return self._driver.execute_script(script)  # type: ignore[no-untyped-call]

    def run_async(self, script: str) -> Any:
        """What a piece of JavaScript gives to its last argument, a function."""
        return self._driver.execute_async_script(script)  # type: ignore[no-untyped-call]

    def requests(self) -> list[str]:
        """The addresses that pages have asked for since the last call; not `data:`, nor the browser's own."""
        log = self._driver.get_log("performance")  # type: ignore[no-untyped-call]
        events = [json.loads(entry["message"])["message"] for entry in log]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [address for address in asked if not address.startswith(("data:", "chrome"))]

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._driver.print_page())

    def wait_for(self, *texts: str) -> None:
        """Waits until the page shows all these texts.

        Raises:
            TimeoutError: it does not; the message has what it shows instead.
        """
        self.wait_until(
            lambda: not [text for text in texts if text not in self.text()],
            lambda: (
                f"{[text for text in texts if text not in self.text()]} is not on the page: {self.text()}"
            ),
        )

    def wait_until(self, condition: Callable[[], Any], what: Callable[[], str]) -> None:
        """Waits until a condition holds.

        Raises:
            TimeoutError: it does not; `what` says what is missing.
        """
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(what())
            time.sleep(0.1)

    def wait_for_figures(self, count: int) -> None:
        """Waits until at least so many Plotly figures are drawn."""
        drawn = "return document.querySelectorAll('.js-plotly-plot .cartesianlayer').length"
        self.wait_until(
            lambda: self.run(drawn) >= count, lambda: f"{self.run(drawn)} of {count} figures are drawn"
        )

    def wait_for_pictures(self, count: int) -> None:
        """Waits until at least so many images (not icons) are loaded."""
        loaded = "return [...document.images].filter(image => image.naturalWidth > 100).length"
        self.wait_until(
            lambda: self.run(loaded) >= count, lambda: f"{self.run(loaded)} of {count} images are loaded"
        )

    def errors(self) -> list[str]:
        """What the browser's console has complained of since the last call."""
        log = self._driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def picture(self, path: Path, element: str | None = None) -> None:
        """Writes a screenshot, PNG: of the window, or of the element that a CSS selector names."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if element is None:
            self._driver.save_screenshot(str(path))
        else:
            self._driver.find_element("css selector", element).screenshot(str(path))


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        package = {"chromedriver": "chromium-driver"}.get(name, name)
        raise FileNotFoundError(f"{name} is not installed; on Debian: apt-get install {package}")
    return found
