import shutil
from pathlib import Path

from conftest import Project
from headstart.base.manifest import read_manifest, write_manifest
from headstart.serve.examples import find_examples
from headstart.serve.model_info import load_model_info


def test_examples_have_author_and_licence(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root / "stages", tmp_path / "stages")
    path, model = tmp_path / "stages/split/test.json", tmp_path / "stages/export"
    test = read_manifest(path)
    credit: list[dict[str, str]] = [{"author": "Ada", "license": "CC BY 4.0"}, {"license": "CC0"}, {}]
    images = tuple(image.model_copy(update=credit[number % 3]) for number, image in enumerate(test.images))
    write_manifest(test.model_copy(update={"images": images}), path)
    expected = {tmp_path / i.file_name: ("Ada, CC BY 4.0", "CC0", "")[n % 3] for n, i in enumerate(images)}
    examples = find_examples(model)
    assert {"Ada, CC BY 4.0", "CC0", ""} == {example.credit for example in examples}
    for found in (examples, load_model_info(model, examples).examples):
        assert [example.credit for example in found] == [expected[example.path] for example in examples]
