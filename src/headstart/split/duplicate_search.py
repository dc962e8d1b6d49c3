"""Near-duplicates of a manifest's pictures: hashes and fingerprints of their files, compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.base.arrays import Floats, Floats32
from headstart.base.manifest import Image
from headstart.base.parallel import parallel_map
from headstart.base.stored_picture import open_stored_picture
from headstart.images.oriented_hash import HashMatch, find_matches, hash_coefficients, hash_distance
from headstart.split.near_duplicates import Pair, find_near_duplicates

SHOWN = 24  # pairs of each kind on the contact sheet


@dataclass(frozen=True)
class PicturePair:
    """Two pictures that were compared.

    Attributes:
        first: a picture.
        second: another.
        cosine: of their whitened fingerprints.
        distance: as a part of the distance that is usual in the set.
        bits: of the 64 of their perceptual hashes that differ, in the orientation in which they differ least.
    """

    first: Image
    second: Image
    cosine: float
    distance: float
    bits: int


@dataclass(frozen=True)
class DuplicateSearch:
    """What was found.

    Attributes:
        pairs: near-duplicates, the most alike first.
        apart: the nearest pairs that are none.
        limit: of the distance, chosen on the set; 0 where nothing was compared.
    """

    pairs: tuple[PicturePair, ...] = ()
    apart: tuple[PicturePair, ...] = ()
    limit: float = 0.0


def search_near_duplicates(images: Sequence[Image], bits: int, root: Path) -> DuplicateSearch:
    """Compare all pictures; identical files once. Nothing is found, nor any network run, where `bits` is negative.

    The order of `images` changes nothing.

    Raises:
        UserError: a picture cannot be read, or the package with the network's weights is missing.
    """
    # Sorted, since of two pictures the first one is turned, and sums in another order have other last bits.
    ordered = sorted(images, key=lambda image: (image.sha256, -image.id))
    different = list({image.sha256: image for image in ordered}.values())
    if bits < 0 or len(different) < 2:
        return DuplicateSearch()
    # Imported here: torch costs seconds, and `near_duplicate_bits: -1` needs none of it.
    from headstart.features.fingerprints import WIDTHS, compute_fingerprints, compute_turned

    coefficients = parallel_map(lambda image: _hash_file(root / image.file_name), different, "hash pictures")

    def turned(matches: Sequence[HashMatch]) -> Floats32:
        return compute_turned([(different[match.first], match.orientation) for match in matches], root)

    fingerprints = compute_fingerprints(different, root)
    found = find_near_duplicates(fingerprints, WIDTHS, find_matches(coefficients, bits), turned, SHOWN)

    def describe(pairs: Sequence[Pair]) -> tuple[PicturePair, ...]:
        return tuple(
            PicturePair(
                different[pair.first],
                different[pair.second],
                pair.cosine,
                pair.distance,
                hash_distance(coefficients[pair.first], coefficients[pair.second]),
            )
            for pair in pairs
        )

    return DuplicateSearch(describe(found.pairs), describe(found.apart), found.limit)


def _hash_file(path: Path) -> Floats:
    with open_stored_picture(path) as picture:
        return hash_coefficients(picture)
