"""The ONNX files: what they take and give, and that they hold nothing of the machine that exported them."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import headstart
from conftest import Project
from headstart.export.onnx_file import clear_metadata


@pytest.mark.parametrize(
    ("task", "size", "outputs"),
    [
        ("project", 32, ["logits", "probabilities", "strangeness"]),
        ("detect_project", 96, ["boxes", "scores", "labels"]),
    ],
)
def test_the_file_takes_pixels_in_batches_of_any_size(
    task: str, size: int, outputs: list[str], request: pytest.FixtureRequest
) -> None:
    project: Project = request.getfixturevalue(task)
    model = project.root / "stages/export/model.onnx"
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    assert (pixels.name, pixels.type, pixels.shape[1:]) == ("pixels", "tensor(uint8)", [size, size, 3])
    assert isinstance(pixels.shape[0], str)
    assert [output.name for output in session.get_outputs()] == outputs


@pytest.mark.parametrize("task", ["project", "detect_project"])
def test_the_file_holds_no_path_of_the_exporting_machine_and_no_name_of_the_package(
    task: str, request: pytest.FixtureRequest
) -> None:
    project: Project = request.getfixturevalue(task)
    data = (project.root / "stages/export/model.onnx").read_bytes()
    package = Path(headstart.__file__).parent
    for text in (package, package.parent, Path(onnx.__file__).parents[1], project.root, "headstart", "site-packages"):
        assert str(text).encode() not in data, text


def test_metadata_is_cleared_of_the_graph_its_nodes_values_functions_and_subgraphs() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    inner = helper.make_node("Identity", ["x"], ["y"], name="inner")
    branch = helper.make_graph([inner], "branch", [], [value])
    outer = helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)
    function = helper.make_function("domain", "f", ["x"], ["y"], [inner], [helper.make_opsetid("", 18)])
    graph = helper.make_graph([outer], "graph", [value], [value], value_info=[value])
    model = helper.make_model(graph, functions=[function])
    expected = onnx.ModelProto()
    expected.CopyFrom(model)
    node = model.graph.node[0]
    messages = [model, model.graph, node, *model.graph.input, *model.graph.output, *model.graph.value_info]
    messages += [model.functions[0], model.functions[0].node[0], node.attribute[0].g, node.attribute[0].g.node[0]]
    for message in messages:
        message.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /somewhere/network.py")
    assert model != expected
    clear_metadata(model)
    assert model == expected, "all else stays"
