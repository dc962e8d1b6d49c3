"""Misses, false positives and best detections as small pictures with their boxes: errors are found by eye."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.base.detections import Detection
from headstart.base.manifest import Annotation, Image, Manifest, xywh_to_xyxy
from headstart.evaluation.detector.outcomes import Outcomes
from headstart.evaluation.gallery import Gallery, GalleryItem, by_confidence, slug
from headstart.images.draw_boxes import DrawnBox, draw_boxes
from headstart.images.thumbnail import encode_jpeg, read_rgb

_LONGEST_SIDE = 400  # of a picture in the gallery, in pixels
# Names in cases.csv and of the pictures. Each of CASE_KINDS has a third of the gallery; second boxes are among the
# false alarms.
MISS, FALSE_ALARM, HIT = CASE_KINDS = ("miss", "false alarm", "hit")
SECOND_BOX = "second box"


@dataclass(frozen=True)
class GalleryCase:
    """One box: a miss has no predicted label and no confidence, a false positive on background no (actual) label."""

    kind: str  # of CASE_KINDS, a wrong label is a false alarm; or SECOND_BOX, on an object that has one already
    image: Image
    label: str | None
    predicted: str | None
    confidence: float | None
    jpeg: bytes


@dataclass(frozen=True)
class _Candidate:
    kind: str
    weight: float  # the highest come first: a miss's share of the picture, else the confidence
    image: Image
    index: int | None  # of the detection
    truth: Annotation | None


def find_cases(
    root: Path,
    manifest: Manifest,
    detections: Sequence[Detection],
    outcomes: Outcomes,
    threshold: float,
    max_items: int,
) -> list[GalleryCase]:
    """A third of `max_items` of each kind: largest misses, most confident false positives, most confident hits.

    A picture stands at most once in each kind.

    Args:
        root: folder to which the pictures' file names are relative.
        manifest: the ground truth.
        detections: of one model.
        outcomes: of both.
        threshold: detections with lower scores are not drawn.
        max_items: number of cases at most.

    Raises:
        UserError: a picture file is missing.
    """
    names = {category.id: category.name for category in manifest.categories}
    cases = []
    for number, kind in enumerate(CASE_KINDS):
        share = (max_items + len(CASE_KINDS) - 1 - number) // len(CASE_KINDS)
        for candidate in _top_per_image(_candidates(kind, manifest, detections, outcomes), share):
            boxes = _boxes_to_draw(candidate, manifest, detections, threshold, names)
            detection = detections[candidate.index] if candidate.index is not None else None
            cases.append(
                GalleryCase(
                    kind=candidate.kind,
                    image=candidate.image,
                    label=names[candidate.truth.category_id] if candidate.truth else None,
                    predicted=names[detection["category_id"]] if detection else None,
                    confidence=detection["score"] if detection else None,
                    jpeg=encode_jpeg(draw_boxes(read_rgb(root / candidate.image.file_name), boxes, _LONGEST_SIDE)),
                )
            )
    return cases


def _candidates(kind: str, manifest: Manifest, detections: Sequence[Detection], outcomes: Outcomes) -> list[_Candidate]:
    images = {image.id: image for image in manifest.images}
    annotations = {annotation.id: annotation for annotation in manifest.annotations}
    if kind == MISS:
        missed = [annotations[annotation_id] for annotation_id in outcomes.false_negatives]
        return [_missed_candidate(annotation, images[annotation.image_id]) for annotation in missed]

    def candidates(of_kind: str, pairs: Iterable[tuple[int, int | None]]) -> list[_Candidate]:
        return [
            _Candidate(
                kind=of_kind,
                weight=detections[index]["score"],
                image=images[detections[index]["image_id"]],
                index=index,
                truth=None if annotation_id is None else annotations[annotation_id],
            )
            for index, annotation_id in pairs
        ]

    if kind == HIT:
        return candidates(HIT, outcomes.true_positives)
    on_background = [(index, None) for index in outcomes.false_positives]
    false_alarms = candidates(FALSE_ALARM, [*outcomes.misclassified, *on_background])
    return [*false_alarms, *candidates(SECOND_BOX, outcomes.duplicates)]


def _missed_candidate(annotation: Annotation, image: Image) -> _Candidate:
    return _Candidate(MISS, annotation.area / (image.width * image.height), image, None, annotation)


def _top_per_image(candidates: Sequence[_Candidate], max_items: int) -> list[_Candidate]:
    """Those with the highest weights, one a picture."""
    best: dict[int, _Candidate] = {}
    for candidate in sorted(candidates, key=lambda one: by_confidence(one.image, one.weight)):
        best.setdefault(candidate.image.id, candidate)
    return list(best.values())[:max_items]


def _boxes_to_draw(
    candidate: _Candidate,
    manifest: Manifest,
    detections: Sequence[Detection],
    threshold: float,
    names: dict[int, str],
) -> list[DrawnBox]:
    """All boxes of the picture, the candidate's first; ground-truth labels only of the candidate and of crowds."""
    boxes = [
        DrawnBox(
            xywh_to_xyxy(detection["bbox"]),
            f"{names[detection['category_id']]} {detection['score']:.2f}",
            highlighted=index == candidate.index,
        )
        for index, detection in enumerate(detections)
        if detection["image_id"] == candidate.image.id and detection["score"] >= threshold
    ]
    for annotation in manifest.annotations:
        if annotation.image_id == candidate.image.id:
            own = candidate.truth is not None and annotation.id == candidate.truth.id
            name = names[annotation.category_id]
            boxes.append(
                DrawnBox(
                    xywh_to_xyxy(annotation.bbox),
                    f"{name} crowd" if annotation.iscrowd else name if own else "",
                    ground_truth=True,
                    highlighted=own and candidate.index is None,
                )
            )
    return sorted(boxes, key=lambda box: not box.highlighted)


def case_gallery(cases: Sequence[GalleryCase]) -> Gallery:
    """Pictures named by kind and labels, and cases.csv."""
    items = []
    for case in cases:
        labels = " as ".join(filter(None, (case.label, case.predicted if case.predicted != case.label else None)))
        confidence = None if case.confidence is None else round(case.confidence, 6)
        row = (case.kind, case.image.file_name, case.label, case.predicted, confidence)
        items.append(GalleryItem(slug(f"{case.kind} {labels}"), case.jpeg, row))
    return Gallery("cases.csv", ("kind", "file_name", "label", "predicted", "confidence"), items)
