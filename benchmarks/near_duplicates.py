"""How many altered copies of a folder's pictures the split stage finds, and what it merges that nobody altered.

    python benchmarks/near_duplicates.py --pictures FOLDER [--sheet near-duplicates.jpg]

Each kind of change is made to 60 pictures, and the copies are added to all pictures of the folder. A copy is found
where it is linked with its original. Beside it: how many a 64-bit perceptual hash alone finds within 4 bits, as it is.
"""

import argparse
import hashlib
import io
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageDraw, ImageEnhance, ImageOps

from headstart.base.manifest import Image
from headstart.images.oriented_hash import find_pairs, hash_coefficients
from headstart.split.contact_sheet import write_contact_sheet
from headstart.split.duplicate_search import search_near_duplicates

COPIES = 60
BITS = 10
Picture = Pillow.Image


def crop(picture: Picture, share: float) -> Picture:
    """Cut this share of the width and height off, on all sides unevenly."""
    width, height = picture.size
    left, top = round(width * share * 0.75), round(height * share / 3)
    return picture.crop((left, top, left + round(width * (1 - share)), top + round(height * (1 - share))))


def banner(picture: Picture) -> Picture:
    """A white bar with words over the lowest 15 %."""
    changed = picture.copy()
    width, height = changed.size
    pen = ImageDraw.Draw(changed)
    pen.rectangle((0, round(height * 0.85), width, height), fill="white")
    pen.text((width // 10, round(height * 0.88)), "PHOTO OF THE DAY", fill="black")
    return changed


def recompress(picture: Picture) -> Picture:
    """JPEG at quality 30."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return Pillow.open(buffer)


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "5 % cropped": lambda picture: crop(picture, 0.05),
    "10 % cropped": lambda picture: crop(picture, 0.10),
    "a banner": banner,
    "mirrored": ImageOps.mirror,
    "a quarter turn": lambda picture: picture.transpose(Pillow.Transpose.ROTATE_90),
    "half a turn": lambda picture: picture.transpose(Pillow.Transpose.ROTATE_180),
    "30 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
    "JPEG at quality 30": recompress,
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
}


def read(path: Path) -> Picture:
    """A picture, decoded; grey stays grey."""
    with Pillow.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
        return upright if upright.mode == "L" else upright.convert("RGB")


def store(picture: Picture, folder: Path) -> Image:
    """A picture as a file of a folder, and its record."""
    path = folder / f"{hashlib.sha256(picture.tobytes()).hexdigest()[:32]}.png"
    picture.save(path, compress_level=1)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    width, height = picture.size
    return Image(id=0, file_name=str(path), width=width, height=height, sha256=sha256, source="benchmark")


def numbered(images: list[Image]) -> list[Image]:
    """The records with ids of their own."""
    return [image.model_copy(update={"id": number}) for number, image in enumerate(images)]


def found_by_hash(originals: list[Image], copies: list[Image]) -> int:
    """How many copies a perceptual hash alone finds within 4 bits."""
    hashes = [[hash_coefficients(read(Path(image.file_name))) for image in images] for images in (originals, copies)]
    return sum(bool(find_pairs(pair, 4)) for pair in zip(*hashes, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="write the contact sheet of the folder's own pictures there")
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.pictures.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = numbered(list({image.sha256: image for image in (store(read(path), root) for path in paths)}.values()))
        start = time.perf_counter()
        search = search_near_duplicates(images, BITS, root)
        seconds = time.perf_counter() - start
        merged = len({image.id for pair in search.pairs for image in (pair.first, pair.second)})
        print(
            f"{len(images):,} different pictures, {seconds:.0f} s: {len(search.pairs):,} pairs of {merged:,} pictures,"
        )
        print(f"of them {sum(pair.bits <= 4 for pair in search.pairs):,} within 4 bits; limit {search.limit:.2f}\n")
        if arguments.sheet:
            write_contact_sheet(search, root, arguments.sheet.resolve())
        chosen = random.Random(0).sample(images, min(COPIES, len(images)))
        print(f"| {len(chosen)} copies, | found | by a hash of 4 bits |\n|---|---|---|")
        for name, change in CHANGES.items():
            copies = [store(change(read(Path(image.file_name))), root) for image in chosen]
            pairs = search_near_duplicates(numbered([*images, *copies]), BITS, root).pairs
            links = {frozenset((pair.first.sha256, pair.second.sha256)) for pair in pairs}
            found = sum(
                frozenset((image.sha256, copy.sha256)) in links for image, copy in zip(chosen, copies, strict=True)
            )
            share, by_hash = 100 * found / len(chosen), 100 * found_by_hash(chosen, copies) / len(chosen)
            print(f"| {name} | {share:.0f} % | {by_hash:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
