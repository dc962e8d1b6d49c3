"""Whether a registered version takes the champion's place: by a paired test that asks more of each challenger."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.errors import UserError
from headstart.base.manifest import Manifest, read_manifest
from headstart.export.saved_predictions import FILE_NAME, SavedPredictions, read_predictions
from headstart.params.root import Params

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

    from headstart.export.comparison import Comparison

PREDICTIONS_ARTIFACT = f"export/{FILE_NAME}"  # a run's test predictions
# Of a version and its run: the number of the challenge, and of which version by which metric. Of the registered model:
# the number of its last challenge, which stays when the challenger is deleted.
NUMBER_TAG, CHALLENGED_TAG, LAST_TAG = "headstart.challenger", "headstart.challenged", "headstart.challengers"
BY_HAND = "move the alias by hand in MLflow's page if you want to"


@dataclass(frozen=True)
class Outcome:
    """Whether a version becomes champion, why, and the tags that record the challenge."""

    is_champion: bool
    reason: str
    tags: dict[str, str] = field(default_factory=dict)


def challenge(
    client: "MlflowClient", name: str, version: str, champion: str | None, params: Params, root: Path
) -> Outcome:
    """Compare this export with the version that is champion.

    Args:
        client: of the store.
        name: of the registered model.
        version: of this export.
        champion: the version that is champion; None: no version is.
        params: all of params.yaml.
        root: the repository root.
    """
    if champion is None:
        return Outcome(True, "there was none before")
    candidate = read_predictions(root / "stages" / PREDICTIONS_ARTIFACT)
    baseline = _predictions(client, client.get_model_version(name, champion))
    if baseline is None:
        return Outcome(False, f"version {champion} is, and its run has no test predictions to compare with; {BY_HAND}")
    from headstart.export.comparison import common_test_set, compare_predictions
    from headstart.metrics.paired_test import challenger_level

    test = read_manifest(root / "stages/split/test.json")
    common = common_test_set(test, candidate, baseline) if set(candidate.labels) == set(baseline.labels) else None
    if common is None:
        return Outcome(
            False,
            f"version {champion} is, and it was evaluated on another test set ({baseline.test_set}, here "
            f"{candidate.test_set}), so the two cannot be compared; {BY_HAND}",
        )
    metric = params.champion_metric
    challenged = f"version {champion} by {metric}"
    number = _number_challenge(client, name, version, champion, challenged)
    level = challenger_level(number)
    comparison = compare_predictions(common, candidate, baseline, metric, level, params.seed)
    is_better = comparison.is_better(level)
    reason = f"{describe(comparison, metric, champion, common)}; challenger {number} of it needs p <= {level:.4g}"
    if is_better and params.export.champion_rule == "better_and_worse_nowhere":
        worse = _worse_slices(common, candidate, baseline, params, root)
        is_better = not worse
        reason += f"; {'worse on ' + ', '.join(worse) if worse else 'worse on no slice'}"
    return Outcome(is_better, reason, {NUMBER_TAG: str(number), CHALLENGED_TAG: challenged})


def _number_challenge(client: "MlflowClient", name: str, version: str, champion: str, challenged: str) -> int:
    """How many challenges of this champion there have been with this one, which is recorded; a repetition is none.

    A comparison by another metric is one more: it is another chance.
    """
    own = client.get_model_version(name, version).tags
    if own.get(CHALLENGED_TAG) == challenged:
        return int(own[NUMBER_TAG])
    last, _, of = client.get_registered_model(name).tags.get(LAST_TAG, "").partition(" of version ")
    number = int(last) + 1 if of == str(champion) else 1
    client.set_registered_model_tag(name, LAST_TAG, f"{number} of version {champion}")
    return number


def describe(comparison: "Comparison", metric: str, champion: str, common: Manifest) -> str:
    """Both figures, what the difference rests on, and its p-value."""
    counts = ""
    if comparison.counts:
        counts = ", {} to {} of the pictures that only one has right".format(*comparison.counts)
    return (
        f"{metric} {comparison.candidate:.4f} against {comparison.baseline:.4f} of version {champion} on the same "
        f"{len(common.images)} test pictures, better by {comparison.gain:.4f}{counts} (p = {comparison.test.p:.3g}, "
        f"{comparison.test.method})"
    )


def _worse_slices(
    common: Manifest, candidate: SavedPredictions, baseline: SavedPredictions, params: Params, root: Path
) -> list[str]:
    """Slices of `evaluate.slices`, and groups, on which the candidate is worse, corrected for their number."""
    from headstart.evaluation.slices import divide
    from headstart.export.comparison import worse_slices

    slicings = divide(common.images, params.evaluate.slices, root)
    return worse_slices(common, candidate, baseline, params.champion_metric, slicings, params.seed)


def _predictions(client: "MlflowClient", version: "ModelVersion") -> SavedPredictions | None:
    """The test predictions of a registered version; None: they are missing, as with a model registered by hand."""
    from mlflow.exceptions import MlflowException
    from pydantic import ValidationError

    if not version.run_id:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return read_predictions(Path(client.download_artifacts(version.run_id, PREDICTIONS_ARTIFACT, scratch)))
        except (MlflowException, OSError, ValidationError, UserError):
            return None
