"""`headstart demo OUT`: the page as a folder for any web host, with the model in the visitor's browser."""

import shutil
from pathlib import Path

from headstart.errors import UserError, missing_file
from headstart.files import write_bytes, write_text
from headstart.gallery import thumbnail
from headstart.predict import Model
from headstart.serve.about import about, examples

_HERE = Path(__file__).parent
ASSETS = Path(".cache/onnxruntime-web")  # what `make demo-assets` fetches
_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def demo(out: Path, model: Path) -> None:
    """Write the page, the model, test pictures to try and onnxruntime-web into a new folder.

    Raises:
        UserError: the folder holds something, there is no model, or no onnxruntime-web.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: holds something already; name a new folder")
    Model(model)  # that it is one is found out here, and not by the visitors
    found = examples(model)
    told = about(model, found)
    for name in _RUNTIME:
        if not (ASSETS / name).is_file():
            raise missing_file(ASSETS / name, "fetch it, with npm: make demo-assets")
    shutil.copytree(_HERE / "page", out, dirs_exist_ok=True)
    shutil.copytree(_HERE / "browser", out, dirs_exist_ok=True)  # its answer.js instead of the server's
    (out / "ort").mkdir()
    for name in _RUNTIME:
        shutil.copyfile(ASSETS / name, out / "ort" / name)
    shutil.copyfile(model / "model.onnx", out / "model.onnx")
    for sample in found:
        write_bytes(out / sample.picture, sample.path.read_bytes())
        write_bytes(out / sample.thumbnail, thumbnail(sample.path))
    write_text(out / "model.json", told.model_dump_json(indent=2))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"demo: {out}, {size / 1e6:.0f} MB; look at it: python -m http.server -b 127.0.0.1 -d {out} 8001")
