from headstart.tracking.per_label import MANY_LABELS, Figure, LabelFigure, find_label, label_table, of_many_labels


def test_a_label_is_found_in_flat_and_in_nested_keys() -> None:
    assert find_label(Figure(("train", "label.a.b"), 3)) == LabelFigure("a.b", ("train", "count"), 3)
    assert find_label(Figure(("test", "per_class", "cat", "f1"), 0.5)) == LabelFigure("cat", ("test", "f1"), 0.5)
    assert find_label(Figure(("sources", "cat", "chance"), 0.5)) == LabelFigure("cat", ("sources", "chance"), 0.5)
    assert find_label(Figure(("test", "accuracy"), 0.5)) is None
    assert find_label(Figure(("per_class",), 0.5)) is None


def test_few_labels_make_no_table() -> None:
    few = [Figure((f"label.{number}",), number) for number in range(MANY_LABELS)]
    assert of_many_labels(few) == []
    assert len(of_many_labels([*few, Figure(("label.more",), 1), Figure(("pictures",), 1)])) == MANY_LABELS + 1


def test_the_table_has_a_row_a_label() -> None:
    figures = [
        LabelFigure("a,b", ("fetch", "count"), 8),
        LabelFigure("\ud800", ("fetch", "count"), 4),
        LabelFigure("a,b", ("test", "recall"), 1 / 3),
    ]
    assert label_table(figures) == 'label,fetch/count,test/recall\n"a,b",8,0.333333333\n\\ud800,4,\n'
