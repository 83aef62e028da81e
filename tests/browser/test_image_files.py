"""Pictures drawn by a real Chromium on a white page, beside the pixels that mc1opt reads.

Not TIFF, which Chromium does not show. Not the orientation in WebP, which it does not read; others do.
"""

import base64
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.browser import Browser
from mc1opt.data.image_files import rgb_image
from tests.data.test_metadata import oriented
from tests.support.pictures import NEEDLESS, SEEN_IN_A_BROWSER, Picture

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

DRAW = """
return (async () => {
    const image = new Image();
    image.src = "data:image/%s;base64,%s";
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    return [canvas.height, canvas.width, ...context.getImageData(0, 0, canvas.width, canvas.height).data];
})();
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        browser.open("about:blank")
        yield browser


def drawn(browser: Browser, content: bytes) -> np.ndarray:
    """What the browser shows of a file: height x width x 3."""
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"  # it looks for itself what else it is
    height, width, *values = browser.run(DRAW % (kind, base64.b64encode(content).decode()))
    return np.array(values).reshape(height, width, 4)[..., :3]


@pytest.mark.parametrize("picture", SEEN_IN_A_BROWSER.values(), ids=SEEN_IN_A_BROWSER)
def test_a_picture_is_what_the_browser_shows(browser: Browser, picture: Picture) -> None:
    seen = drawn(browser, picture.content)
    np.testing.assert_allclose(rgb_image(picture.content, "image"), seen, atol=1)
    np.testing.assert_allclose(picture.shown, seen, atol=2)


@pytest.mark.parametrize("picture", NEEDLESS.values(), ids=NEEDLESS)
def test_metadata_changes_nothing_in_the_browser_either(browser: Browser, picture: Picture) -> None:
    np.testing.assert_allclose(picture.shown, drawn(browser, picture.content), atol=1)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_orientation_is_the_browsers(browser: Browser, kind: str, orientation: int) -> None:
    for order in "<>":
        content = oriented(kind, orientation, order)
        np.testing.assert_allclose(rgb_image(content, "image"), drawn(browser, content), atol=1)
