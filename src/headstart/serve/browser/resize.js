// Pillow's Image.resize for 8-bit pixels with its exact rounding, which training used and no canvas offers.
// After Pillow's src/libImaging/Resample.c: a horizontal and a vertical pass, fixed-point weights of 22 bits.

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: bicubic },
  lanczos: { support: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
};
const FIXED_POINT_ONE = 2 ** 22;

function bicubic(x) {
  const distance = Math.abs(x);
  if (distance < 1) return (1.5 * distance - 2.5) * distance * distance + 1;
  return distance < 2 ? ((-0.5 * distance + 2.5) * distance - 4) * distance + 2 : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

// For each output pixel: the first input pixel in the filter's support, and the weights from that pixel on.
function filterWeights(from, to, filter) {
  const scale = from / to;
  const stretch = Math.max(scale, 1); // antialiasing: downsampling widens the support
  const support = filter.support * stretch;
  return Array.from({ length: to }, (_, out) => {
    const centre = (out + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const raw = Array.from({ length: end - first }, (_, i) => filter.weight((i + first - centre + 0.5) / stretch));
    const sum = raw.reduce((a, b) => a + b, 0);
    return { first, values: raw.map((w) => Math.trunc((w / sum) * FIXED_POINT_ONE + (w / sum < 0 ? -0.5 : 0.5))) };
  });
}

// One pass: `lines` lines of `from` pixels are resampled to `to` pixels each. Steps are the distance between two pixels
// of a line, strides that between two lines, both in bytes.
function resamplePass(source, { lines, from, to, step, stride, outStep, outStride, filter }) {
  const out = new Uint8ClampedArray(lines * to * 3);
  filterWeights(from, to, filter).forEach(({ first, values }, pixel) => {
    for (let line = 0; line < lines; line++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = FIXED_POINT_ONE / 2;
        let offset = line * stride + first * step + channel;
        for (let i = 0; i < values.length; i++, offset += step) sum += source[offset] * values[i];
        out[line * outStride + pixel * outStep + channel] = Math.floor(sum / FIXED_POINT_ONE);
      }
    }
  });
  return out;
}

function resizeNearest(rgba, width, height, toWidth, toHeight) {
  const [columns, rows] = [nearestIndices(width, toWidth), nearestIndices(height, toHeight)];
  const out = new Uint8ClampedArray(toWidth * toHeight * 3);
  let offset = 0;
  for (const row of rows) {
    for (const column of columns) {
      for (let channel = 0; channel < 3; channel++) out[offset++] = rgba[4 * (row * width + column) + channel];
    }
  }
  return out;
}

const LETTERBOX_GRAY = 127;

// Summed, not multiplied, as in Pillow: for positions between two pixels the sum's rounding error decides.
function nearestIndices(from, to) {
  const step = from / to;
  let position = step / 2;
  return Array.from({ length: to }, () => {
    const index = Math.trunc(position);
    position += step;
    return index;
  });
}

// RGBA pixels -> RGB pixels of another size. Unknown filters are bicubic, as in engine/input_spec.py.
function resize(rgba, width, height, toWidth, toHeight, interpolation) {
  if (interpolation === "nearest") return resizeNearest(rgba, width, height, toWidth, toHeight);
  const filter = FILTERS[interpolation] ?? FILTERS.bicubic;
  const rows = resamplePass(rgba, {
    lines: height, from: width, to: toWidth, filter,
    step: 4, stride: 4 * width, outStep: 3, outStride: 3 * toWidth,
  });
  return resamplePass(rows, {
    lines: toWidth, from: height, to: toHeight, filter,
    step: 3 * toWidth, stride: 3, outStep: 3 * toWidth, outStride: 3,
  });
}

function halfToEven(x) {
  return Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
}

// Height and width of the model's input; `size` is its side, where it is square.
export function inputShape({ size }) {
  return typeof size === "number" ? [size, size] : size;
}

// `_geometry` of engine/input_spec.py: the size a picture is resized to, and the corner of the model's input in it.
function geometry(width, height, input) {
  const [toHeight, toWidth] = inputShape(input);
  const place = (resizedWidth, resizedHeight, start) => (
    { resizedWidth, resizedHeight, left: start(resizedWidth - toWidth), top: start(resizedHeight - toHeight) }
  );
  if (input.resize === "squash") return place(toWidth, toHeight, () => 0);
  if (input.resize === "letterbox") {
    const widthFits = width * toHeight >= height * toWidth;
    const resizedWidth = widthFits ? toWidth : Math.max(1, halfToEven((width * toHeight) / height));
    const resizedHeight = widthFits ? Math.max(1, halfToEven((height * toWidth) / width)) : toHeight;
    return place(resizedWidth, resizedHeight, (more) => -Math.floor(-more / 2));
  }
  const [coveredWidth, coveredHeight] = [Math.trunc(toWidth / input.crop), Math.trunc(toHeight / input.crop)];
  const widthCovers = width * coveredHeight <= height * coveredWidth;
  const resizedWidth = widthCovers ? coveredWidth : Math.trunc((coveredHeight * width) / height);
  const resizedHeight = widthCovers ? Math.trunc((coveredWidth * height) / width) : coveredHeight;
  return place(resizedWidth, resizedHeight, (more) => halfToEven(more / 2));
}

// `boxes_from_input` of engine/input_spec.py for one box (xmin, ymin, xmax, ymax): pixels of the model's input ->
// pixels of the picture, clipped to it.
export function boxFromInput(corners, width, height, input) {
  const { resizedWidth, resizedHeight, left, top } = geometry(width, height, input);
  return corners.map((value, index) => {
    const [offset, from, to] = index % 2 ? [top, resizedHeight, height] : [left, resizedWidth, width];
    return Math.min(Math.max(((value + offset) * to) / from, 0), to);
  });
}

// `resize_to_input` of engine/input_spec.py: RGBA pixels of an upright picture -> RGB (height, width, 3), as `input` of
// labels.json says.
export function resizeToInput(rgba, width, height, input) {
  const [toHeight, toWidth] = inputShape(input);
  const { resizedWidth, resizedHeight, left, top } = geometry(width, height, input);
  const resized = resize(rgba, width, height, resizedWidth, resizedHeight, input.interpolation);
  if (resizedWidth === toWidth && resizedHeight === toHeight) return resized;
  const out = new Uint8ClampedArray(toWidth * toHeight * 3).fill(LETTERBOX_GRAY);
  const [from, to] = [Math.max(left, 0), Math.min(left + toWidth, resizedWidth)]; // columns of the resized picture
  for (let row = Math.max(top, 0); row < Math.min(top + toHeight, resizedHeight); row++) {
    const line = resized.subarray(3 * (row * resizedWidth + from), 3 * (row * resizedWidth + to));
    out.set(line, 3 * ((row - top) * toWidth + from - left));
  }
  return out;
}
