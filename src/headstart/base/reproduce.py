"""How to reproduce a model: the same lines in the report and in the model card."""

# No commit's hash: DVC's outs are the same bytes for the same params and code, whatever else was committed.
REPRODUCE_NOTE = (
    "The model's MLflow run names the commit (tag `mlflow.source.git.commit`; `headstart.dirty` is true if the code "
    "differed from it) and has the `params.yaml` among its artifacts."
)
REPRODUCE_COMMANDS = (
    "git clone <this repository> && cd <its folder>",
    "git checkout <its commit>",
    "cp <its params.yaml> params.yaml",
    "make repro",
)
