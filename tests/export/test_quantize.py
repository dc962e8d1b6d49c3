"""Which nodes of a graph stay in float."""

from onnx import GraphProto, helper

from headstart.export.quantize import find_float_nodes


def graph(*nodes: tuple[str, str, str]) -> GraphProto:
    """(kind, names of what it takes, name of what it makes); a node goes by what it makes."""
    return helper.make_graph(
        [helper.make_node(kind, taken.split(), [made], name=made) for kind, taken, made in nodes], "made up", [], []
    )


def test_a_classifier_but_for_its_probabilities() -> None:
    network = graph(("Conv", "pixels w1", "map"), ("Relu", "map", "rectified"), ("Gemm", "rectified w2", "logits"))
    assert find_float_nodes(network) == []
    network.node.append(helper.make_node("Mul", ["logits", "temperature"], ["scaled"], name="scaled"))
    assert find_float_nodes(network) == ["scaled"]


def test_of_one_stage_the_last_convolutions_and_what_becomes_of_them() -> None:
    network = graph(
        ("Conv", "pixels w1", "map"),
        ("Add", "map b", "moved"),
        ("Conv", "moved w2", "logits"),
        ("Conv", "moved w3", "offsets"),
        ("Mul", "offsets stride", "boxes"),
        ("NonMaxSuppression", "boxes logits", "chosen"),
    )
    assert find_float_nodes(network) == ["logits", "offsets", "boxes", "chosen"]


def test_of_two_stages_the_proposals_too() -> None:
    network = graph(
        ("Conv", "pixels w1", "map"),
        ("Conv", "map w2", "offsets"),
        ("Mul", "offsets anchors", "proposals"),
        ("RoiAlign", "map proposals numbers", "fine"),
        ("RoiAlign", "map proposals numbers", "coarse"),
        ("Where", "proposals fine coarse", "crops"),
        ("Gemm", "crops w3", "hidden"),
        ("Gemm", "hidden w4", "changes"),
        ("Add", "proposals changes", "boxes"),
    )
    assert find_float_nodes(network) == ["offsets", "proposals", "boxes"]


def test_a_classifiers_head_stays_in_float_and_the_network_below_does_not() -> None:
    """That of a kernel: its landmarks are a constant without a name of the head's."""
    network = graph(
        ("Conv", "pixels w1", "map"),
        ("Relu", "map", "rectified"),
        ("Conv", "rectified w2", "last"),
        ("Relu", "last", "pooled"),
        ("Concat", "pooled rectified", "features"),
        ("MatMul", "features whole.network.head.0.projection", "components"),
        ("Mul", "components components", "squares"),
        ("MatMul", "components landmarks", "products"),
        ("Sub", "squares products", "distances"),
        ("Gemm", "distances whole.network.head.2.weight", "logits"),
    )
    assert find_float_nodes(network) == [
        "pooled",
        "features",
        "components",
        "squares",
        "products",
        "distances",
        "logits",
    ]
    convolutions = graph(("Conv", "pixels whole.network.head.0.weight", "map"), ("Conv", "map w2", "boxes"))
    assert find_float_nodes(convolutions) == ["boxes"], "of a detector"


def test_strangeness_and_what_leads_from_the_features_to_it_stay_in_float() -> None:
    network = graph(
        ("Conv", "pixels w1", "map"),
        ("GlobalAveragePool", "map", "features"),
        ("Mul", "features features", "squares"),
        ("Div", "features squares", "normalized"),
        ("MatMul", "normalized whole.network.strangeness.components", "projected"),
        ("Mul", "projected projected", "distance"),
        ("Gemm", "features w2", "logits"),
    )
    assert find_float_nodes(network) == ["squares", "normalized", "projected", "distance"]
