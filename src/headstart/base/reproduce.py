"""How to reproduce a model: the same lines in the report and in the model card."""

# No commit's hash: DVC's outs are the same bytes for the same params and code, whatever else was committed.
REPRODUCE_NOTE = (
    "The model's MLflow run names the commit (tag `mlflow.source.git.commit`) and has `params.yaml`, `data.dvc` and, "
    "where the code differed from the commit (tag `headstart.dirty`), `diff.patch` among its artifacts."
)
REPRODUCE_COMMANDS = (
    "git clone <this repository> && cd <its folder>",
    "git checkout <its commit>",
    "git apply <its diff.patch, if it has one>",
    "cp <its params.yaml> <its data.dvc> .",
    "make repro",
)
