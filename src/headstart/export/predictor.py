"""The exported model in onnxruntime: pictures -> probabilities, or boxes. torch is not imported."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from headstart.base.arrays import Floats32, Ints
from headstart.base.errors import UserError, first_line, missing_file
from headstart.base.files import read_json
from headstart.engine.input_spec import InputSpec, Pixels, boxes_from_input, resize_to_input
from headstart.engine.tiles import cut_tile, merge_tiles, tile_grid
from headstart.export.model_prediction import DetectedBox, FilePrediction, ModelPrediction
from headstart.images.decode import MAX_BYTES, MAX_PIXELS, PictureError, open_upright

TILES_AT_ONCE = 8  # in one forward pass
OutputT = TypeVar("OutputT", bound="ClassifierOutput | DetectorOutput")


class ClassifierOutput(NamedTuple):
    """A classifier's outputs. The names are the ONNX file's.

    Attributes:
        logits: (n, labels).
        probabilities: calibrated, (n, labels).
        strangeness: distance from the training pictures, (n,); NaN: the model was exported without it.
    """

    logits: Floats32
    probabilities: Floats32
    strangeness: Floats32


class DetectorOutput(NamedTuple):
    """A detector's outputs. The names are the ONNX file's.

    Attributes:
        boxes: xmin, ymin, xmax, ymax in pixels of the input, (n, k, 4).
        scores: falling, (n, k); 0: no box.
        labels: numbers of the labels, (n, k).
    """

    boxes: Floats32
    scores: Floats32
    labels: Ints


@dataclass(frozen=True)
class PreprocessedImage:
    """A picture as the network's input.

    Attributes:
        pixels: (t, height, width, 3), of its t tiles; t is 1 where the model takes whole pictures.
        width: of the upright original.
        height: of the upright original.
    """

    pixels: Pixels
    width: int
    height: int


def preprocess(data: bytes, input_spec: InputSpec, max_pixels: int = MAX_PIXELS) -> PreprocessedImage:
    """Validate and decode the bytes of a picture file, and resize the picture to the network's input.

    Raises:
        PictureError: the bytes are not a complete picture, or it has more than `max_pixels`.
    """
    with open_upright(data, max_pixels) as picture:
        return preprocess_picture(picture, input_spec)


def preprocess_picture(picture: Pillow.Image, input_spec: InputSpec) -> PreprocessedImage:
    """Resize an upright picture, or each of its tiles, to the network's input."""
    width, height = picture.size
    if tiles := input_spec.tiles:
        parts = [cut_tile(picture, tile, tiles) for tile in tile_grid(width, height, tiles)]
    else:
        parts = [picture]
    return PreprocessedImage(np.stack([resize_to_input(part, input_spec) for part in parts]), width, height)


def read_picture(path: Path) -> bytes:
    """The bytes of a picture file; no more than MAX_BYTES + 1, which are too many for a picture.

    Raises:
        OSError: it cannot be read.
        PictureError: it is not a file (reading from a pipe would wait forever).
    """
    if not path.exists():
        raise PictureError("missing", "no such file")
    if not path.is_file():
        raise PictureError("unreadable", "not a file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


class Predictor:
    """The exported model of a folder.

    Attributes:
        labels: their names.
        input: the network's input.
        threshold: score from which a detector's box counts; None: the model is a classifier.
        class_agnostic: whether a detector's boxes are suppressed, and those of tiles merged, across labels.
        unknown_above: strangeness above which a picture is none of the labels; None: there is no such picture.
        set_thresholds: probability from which a label is in a picture's set, in the labels' order; None: the most
            probable one alone is. Both are None too for a detector, and a model exported by an older version.
    """

    def __init__(self, folder: Path) -> None:
        """Load model.onnx and labels.json.

        Raises:
            UserError: one of them is missing or damaged.
        """
        import onnxruntime

        for name in ("model.onnx", "labels.json"):
            if not (folder / name).is_file():
                raise missing_file(folder / name, "make it: dvc repro")
        content = read_json(folder / "labels.json")
        self.labels: list[str] = content["labels"]
        self.input = InputSpec.model_validate(content["input"])
        self.threshold: float | None = content.get("threshold")
        self.class_agnostic: bool = content.get("class_agnostic_nms", False)
        self.unknown_above: float | None = content.get("unknown", {}).get("threshold")
        self.set_thresholds: list[float] | None = content.get("prediction_sets", {}).get("thresholds")
        options = onnxruntime.SessionOptions()
        # Threads that spin while they wait take the cores from those that decode the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path, providers = folder / "model.onnx", ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # onnxruntime's have no class in common
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise UserError(f"{path}: damaged ({first_line(error)}); run `dvc repro` to make it anew") from None
        self._outputs = {output.name for output in self._session.get_outputs()}

    def classifier_output(self, pixels: Pixels) -> ClassifierOutput:
        """A classifier's outputs for pixels (n, height, width, 3)."""
        outputs = self._run_session([name for name in ClassifierOutput._fields if name in self._outputs], pixels)
        if "strangeness" not in self._outputs:
            outputs.append(np.full(len(pixels), np.nan, np.float32))
        return ClassifierOutput(*outputs)

    def detector_output(self, pixels: Pixels) -> DetectorOutput:
        """A detector's outputs for pixels (n, height, width, 3)."""
        return DetectorOutput(*self._run_session(DetectorOutput._fields, pixels))

    def output(self, pixels: Pixels) -> ClassifierOutput | DetectorOutput:
        """The outputs of a model of either kind, in one forward pass."""
        return self.classifier_output(pixels) if self.threshold is None else self.detector_output(pixels)

    def _run_session(self, names: Sequence[str], pixels: Pixels) -> list[npt.NDArray[Any]]:
        outputs: list[npt.NDArray[Any]] = self._session.run(list(names), {"pixels": pixels})
        return outputs

    def predict_files(self, paths: Sequence[Path]) -> Iterator[FilePrediction]:
        """Yield a prediction for each file, in order; one that cannot be read has the reason as its `error`."""
        for path in paths:
            try:
                image = preprocess(read_picture(path), self.input)
            except (PictureError, OSError) as error:
                reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else first_line(error)
                yield FilePrediction({}, None if self.threshold is None else (), path=path, error=reason)
                continue
            (prediction,) = self.predict_images([image], self.threshold or 0.0)
            yield FilePrediction(**vars(prediction), path=path)

    def predict_images(self, images: Sequence[PreprocessedImage], min_score: float = 0.0) -> list[ModelPrediction]:
        """Predictions for pictures, in one forward pass; a detector's boxes only from `min_score` on."""
        pixels = np.concatenate([image.pixels for image in images])
        output = run_in_batches(self.output, pixels, TILES_AT_ONCE) if self.input.tiles else self.output(pixels)
        return self.to_predictions(output, images, min_score)

    def to_predictions(
        self,
        output: ClassifierOutput | DetectorOutput,
        images: Sequence[PreprocessedImage],
        min_score: float = 0.0,
    ) -> list[ModelPrediction]:
        """Outputs for pictures as predictions; `min_score` as in `predict_images`."""
        if isinstance(output, ClassifierOutput):
            rows = zip(output.probabilities.tolist(), output.strangeness.tolist(), strict=True)
            return [self._classification(probabilities, strangeness) for probabilities, strangeness in rows]
        predictions, start = [], 0
        for image in images:
            end = start + len(image.pixels)
            of_image = DetectorOutput(output.boxes[start:end], output.scores[start:end], output.labels[start:end])
            predictions.append(ModelPrediction({}, self._detected_boxes(of_image, image, min_score)))
            start = end
        return predictions

    def _classification(self, probabilities: list[float], strangeness: float) -> ModelPrediction:
        """One picture's answer; `strangeness` may be NaN."""
        ranked = sorted(range(len(self.labels)), key=lambda label: -probabilities[label])
        in_set = [
            label
            for label in ranked
            if label == ranked[0] or (self.set_thresholds and probabilities[label] >= self.set_thresholds[label])
        ]
        return ModelPrediction(
            dict(zip(self.labels, probabilities, strict=True)),
            strangeness=None if np.isnan(strangeness) else strangeness,
            unknown=self.unknown_above is not None and strangeness > self.unknown_above,
            labels_in_set=tuple(self.labels[label] for label in in_set),
        )

    def _detected_boxes(
        self, output: DetectorOutput, image: PreprocessedImage, min_score: float
    ) -> tuple[DetectedBox, ...]:
        """One picture's boxes with an area and a sufficient score, in pixels of the upright original.

        `output` is of its tiles, (t, k, ...).
        """
        counts = output.scores > 0 if self.input.tiles else (output.scores >= min_score) & (output.scores > 0)
        scores, labels = output.scores[counts], output.labels[counts]
        if tiles := self.input.tiles:  # merged before any is left out, as in the evaluation
            picture = (image.width, image.height)
            starts = np.array(tile_grid(*picture, tiles))[np.nonzero(counts)[0]]
            corners = output.boxes[counts] * (tiles.size / self.input.shape[0]) + np.tile(starts, 2)
            corners = corners.clip(0, [*picture, *picture]).astype(np.float32)
            corners, scores, labels = merge_tiles(
                corners, scores, labels, starts, picture, tiles, across_labels=self.class_agnostic
            )
            count = int((scores >= min_score).sum())  # they fall
            corners, scores, labels = corners[:count], scores[:count], labels[:count]
        else:
            corners = boxes_from_input(output.boxes[counts], image.width, image.height, self.input)
        rows = zip(corners.tolist(), scores.tolist(), labels.tolist(), strict=True)
        return tuple(
            DetectedBox(self.labels[label], score, (x1, y1, x2, y2))
            for (x1, y1, x2, y2), score, label in rows
            if x2 > x1 and y2 > y1
        )


def run_in_batches(model: Callable[[Pixels], OutputT], pixels: Pixels, batch: int) -> OutputT:
    """A model's outputs for pixels (n, height, width, 3), computed `batch` pictures at a time."""
    parts = [model(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]
    return type(parts[0])(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
