// Large pictures in tiles, as engine/tiles.py cuts them and merges what was found in them.

const MERGE_OVERLAP = 0.5; // of the smaller box's area: two boxes of different tiles that share more are one thing
const MERGE_SCORE = 0.5; // of the higher score: a box of a lower one does not make another larger
const CUT_MARGIN = 0.02; // of a tile's side: a box that comes so near to its border may be cut off there
const GRAY = 127;

// `tile_grid` of engine/tiles.py: [left, top] of the tiles that cover a picture, row by row.
export function tileGrid(width, height, { size, overlap }) {
  const starts = (side) => {
    const step = Math.max(1, size - Math.trunc(overlap * size));
    const last = Math.max(0, side - size);
    const found = [];
    for (let start = 0; start < last; start += step) found.push(start);
    return [...found, last];
  };
  return starts(height).flatMap((top) => starts(width).map((left) => [left, top]));
}

// One tile's RGBA pixels (size, size); grey where it reaches beyond the picture.
export function cutTile(rgba, width, height, left, top, size) {
  const out = new Uint8ClampedArray(size * size * 4).fill(GRAY);
  const columns = Math.min(size, width - left);
  for (let row = 0; row < Math.min(size, height - top); row++) {
    const start = 4 * ((top + row) * width + left);
    out.set(rgba.subarray(start, start + 4 * columns), 4 * row * size);
  }
  return out;
}

// `merge_tiles` of engine/tiles.py: boxes { label, score, box, corner } of a picture, `corner` being left and top of
// their tile -> those that are left, the highest score first.
export function mergeTiles(found, width, height, { size }, acrossLabels) {
  const boxes = [...found].sort((a, b) => b.score - a.score); // stable
  const taken = new Set();
  const merged = [];
  boxes.forEach((one, number) => {
    if (taken.has(number)) return;
    let { box } = one;
    let enlarges = touchesNextTile(one, width, height, size);
    do {
      const same = boxes.filter((other, index) => {
        const sameTile = other.corner[0] === one.corner[0] && other.corner[1] === one.corner[1];
        if (index <= number || taken.has(index) || sameTile) return false;
        if (!acrossLabels && other.label !== one.label) return false;
        if (shareOfSmaller(box, other.box) <= MERGE_OVERLAP) return false;
        taken.add(index);
        return other.score >= MERGE_SCORE * one.score;
      });
      enlarges &&= same.length > 0;
      if (enlarges) {
        for (const other of same) {
          box = box.map((value, side) => (side < 2 ? Math.min : Math.max)(value, other.box[side]));
        }
      }
    } while (enlarges);
    merged.push({ ...one, box });
  });
  return merged;
}

// Whether a box ends at a border of its tile beyond which the picture goes on.
function touchesNextTile({ box, corner }, width, height, size) {
  const near = CUT_MARGIN * size;
  return [width, height].some((side, axis) => {
    const [start, end] = [corner[axis], corner[axis] + size];
    return (start > 0 && box[axis] - start < near) || (end < side && end - box[axis + 2] < near);
  });
}

function shareOfSmaller(a, b) {
  const shared = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  return shared / Math.max(Math.min(area(a), area(b)), 1e-9);
}
