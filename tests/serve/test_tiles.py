"""browser/tiles.js against engine/tiles.py."""

import json

import numpy as np
import pytest

import chromium
from headstart.engine.input_spec import TileSpec
from headstart.engine.tiles import cut_tile, merge_tiles, tile_grid
from pages import serve_folder
from serve.test_resize import BROWSER
from tiny import texture

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.INSTALL)


def test_the_browser_cuts_and_merges_as_the_package_does(page: chromium.Chromium) -> None:
    rng = np.random.default_rng(3)
    start, side = rng.uniform(0, 60, (40, 2)), rng.uniform(5, 30, (40, 2))
    boxes = np.concatenate([start, start + side], 1).astype(np.float32)
    scores, labels = rng.uniform(0, 1, 40).astype(np.float32), rng.integers(0, 2, 40)
    tiles = rng.choice([0, 32, 60], (40, 2))
    rows = [
        {"box": box, "score": score, "label": label, "corner": corner}
        for box, score, label, corner in zip(*(a.tolist() for a in (boxes, scores, labels, tiles)), strict=True)
    ]
    with serve_folder(BROWSER) as url:
        page.call("Page.navigate", url=f"{url}tiles.js")
        page.until("location.pathname === '/tiles.js' && document.readyState === 'complete'")
        for width, height in ((100, 30), (40, 40), (333, 97)):
            spec = TileSpec(size=40, overlap=0.2)
            grid = page.js(f"import('/tiles.js').then(m => m.tileGrid({width}, {height}, {spec.model_dump_json()}))")
            assert [tuple(tile) for tile in grid] == tile_grid(width, height, spec)
        picture = texture(1, 0, (100, 30))
        rgba = json.dumps(np.asarray(picture.convert("RGBA")).ravel().tolist())
        part = page.js(
            f"import('/tiles.js').then(m => [...m.cutTile(Uint8ClampedArray.from({rgba}), 100, 30, 60, 0, 40)])"
        )
        expected = np.asarray(cut_tile(picture, (60, 0), TileSpec(size=40, overlap=0.2)))
        assert np.array_equal(np.array(part).reshape(40, 40, 4)[..., :3], expected)
        for across in (False, True):
            args = f"{json.dumps(rows)}, 100, 100, {spec.model_dump_json()}, {json.dumps(across)}"
            merged = page.js(f"import('/tiles.js').then(m => m.mergeTiles({args}))")
            reference = merge_tiles(boxes, scores, labels, tiles, (100, 100), spec, across_labels=across)
            assert len(merged) < 40
            np.testing.assert_allclose([one["box"] for one in merged], reference[0], rtol=1e-6)
            assert [one["label"] for one in merged] == reference[2].tolist()
