"""browser/resize.js against Pillow."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import chromium
from headstart.engine.input_spec import RESAMPLING_FILTERS, ImageSize, InputSpec, resize_to_input
from headstart.serve import demo
from pages import serve_folder

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.INSTALL)
BROWSER = Path(demo.__file__).parent / "browser"
SIZES = [(48, 40), (32, 32), (300, 300), (33, 500), (640, 90)]


@pytest.mark.parametrize("interpolation", RESAMPLING_FILTERS)
@pytest.mark.parametrize(
    ("how", "to"), [("squash", 32), ("crop", 32), ("letterbox", 32), ("crop", (24, 40)), ("letterbox", (40, 24))]
)
def test_the_browser_resizes_as_pillow_does(
    page: chromium.Chromium, interpolation: str, how: str, to: ImageSize
) -> None:
    """The same pixels to the last bit, larger and smaller. For tall pictures Pillow (13) does the vertical pass first,
    and rounding and clipping between the passes differ: at most 6 of 255 on noise, the worst case."""
    input_spec = InputSpec.model_validate(
        {"size": to, "resize": how, "interpolation": interpolation, "crop": 0.875, "mean": [0.5] * 3, "std": [0.5] * 3}
    )
    with serve_folder(BROWSER) as url:
        page.call("Page.navigate", url=f"{url}resize.js")
        page.until("location.pathname === '/resize.js' && document.readyState === 'complete'")
        for size in SIZES:
            rng = np.random.default_rng(size[0])
            noise = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
            rgba = np.asarray(noise.convert("RGBA")).ravel().tolist()
            resized = page.js(
                "import('/resize.js').then(module => [...module.resizeToInput("
                f"Uint8Array.from({json.dumps(rgba)}), {size[0]}, {size[1]}, {input_spec.model_dump_json()})])"
            )
            differences = np.abs(np.array(resized) - resize_to_input(noise, input_spec).ravel().astype(int))
            assert differences.max() <= (0 if size[0] >= size[1] else 6), size
            assert differences.mean() < 0.6, size
