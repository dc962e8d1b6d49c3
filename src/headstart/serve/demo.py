"""`headstart demo OUT`: the page as static files for any web host, with the model running in the visitor's browser."""

import shutil
from pathlib import Path

from headstart.base.errors import UserError, missing_file
from headstart.base.files import write_bytes, write_text
from headstart.export.predictor import Predictor
from headstart.images.thumbnail import make_thumbnail
from headstart.serve.examples import find_examples
from headstart.serve.model_info import load_model_info

_SERVE_FOLDER = Path(__file__).parent
ASSETS = Path(".cache/onnxruntime-web")  # what `make demo-assets` downloads
_RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def write_demo(out: Path, model: Path) -> None:
    """Write the page, the model, test pictures to try and onnxruntime-web into a new folder.

    Args:
        out: the folder; it must be empty or not exist.
        model: the exported model's folder.

    Raises:
        UserError: `out` is not empty, there is no model, or onnxruntime-web is missing.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty; name a new folder")
    Predictor(model)  # a model that cannot be loaded fails here, not in the visitor's browser
    examples = find_examples(model)
    info = load_model_info(model, examples)
    for name in _RUNTIME_FILES:
        if not (ASSETS / name).is_file():
            raise missing_file(ASSETS / name, "fetch it, with npm: make demo-assets")
    shutil.copytree(_SERVE_FOLDER / "page", out, dirs_exist_ok=True)
    shutil.copytree(_SERVE_FOLDER / "browser", out, dirs_exist_ok=True)  # its predict.js replaces the server's
    (out / "ort").mkdir()
    for name in _RUNTIME_FILES:
        shutil.copyfile(ASSETS / name, out / "ort" / name)
    shutil.copyfile(model / "model.onnx", out / "model.onnx")
    for example in examples:
        write_bytes(out / example.picture, example.path.read_bytes())
        write_bytes(out / example.thumbnail, make_thumbnail(example.path))
    write_text(out / "model.json", info.model_dump_json(indent=2))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"demo: {out}, {size / 1e6:.0f} MB; look at it: python -m http.server -b 127.0.0.1 -d {out} 8001")
