"""The pipeline's stages as a graph: which stage reads whose results."""

# Direct dependencies, in pipeline order. `weights` depends on no stage: DVC may run it after fetch, split and augment.
STAGE_DEPENDENCIES: dict[str, tuple[str, ...]] = {
    "fetch": (),
    "weights": (),
    "split": ("fetch",),
    "augment": ("split",),
    "train-head": ("weights", "augment"),
    "fine-tune": ("train-head",),
    "evaluate": ("fine-tune",),
    "export": ("evaluate",),
}
PIPELINE_STAGES = tuple(STAGE_DEPENDENCIES)


def upstream_stages(name: str) -> list[str]:
    """All stages that a stage depends on, directly or not, in pipeline order."""
    needed = {name}
    for candidate in reversed(PIPELINE_STAGES):
        if candidate in needed:
            needed.update(STAGE_DEPENDENCIES[candidate])
    return [candidate for candidate in PIPELINE_STAGES if candidate in needed and candidate != name]
