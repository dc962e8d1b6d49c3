from headstart.tracking.run_names import MAX_NAME, describe_difference

BASE = {
    "task": "classify",
    "model.backbone": "lite0",
    "fine_tune.freeze_depth": "13",
    "fine_tune.lr": "0.001",
    "train_head.lr": "0.001",
    "train_head.epochs": "30",
    "split.train": "0.7",
    "fetch.sources": '[{"table": "data/cells.csv"}]',
    "fine_tune.cache_frozen": "true",
    "weights.name": "lite0.imagenet",
    "network.frozen_parameters": "12",
}


def name(**changes: str) -> str:
    """Of a run whose params differ; `_` after the section stands for the dot."""
    known = {key: value for key, value in BASE.items() if key.split(".")[0] not in ("weights", "network")}
    return describe_difference(known | changes, BASE)


def test_a_name_says_what_differs() -> None:
    assert name(**{"fine_tune.freeze_depth": "8", "fine_tune.lr": "0.003"}) == "freeze 8, lr 3e-3"
    assert name(**{"train_head.lr": "0.00025", "train_head.epochs": "9"}) == "head lr 2.5e-4, head epochs 9"
    assert name(**{"model.backbone": "resnet50", "split.train": "0.6"}) == "resnet50, split train 0.6"
    assert (
        name(**{"fine_tune.cache_frozen": "false", "launcher": "torchrun"}) == "cache frozen false, launcher torchrun"
    )
    assert name(**{"fetch.sources": '[{"folder": "data/pictures/of/mine"}]'}) == "other sources"
    assert name() == ""
    assert describe_difference({"task": "detect"}, {"task": "detect", "task.old": "1"}) == "no old"


def test_a_name_is_short() -> None:
    many = name(**{f"augment.option_{number}": "0.5" for number in range(30)})
    assert many.startswith("option 0 0.5, option 1 0.5")
    assert many.endswith(" and 27 more")
    assert len(many) <= MAX_NAME - 6
    assert len(name(**{"model.backbone": "b" * 200})) <= MAX_NAME - 6
