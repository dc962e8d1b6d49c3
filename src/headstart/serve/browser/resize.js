// Pillow's Image.resize for 8-bit pixels, its rounding included: what the network was trained on, and no canvas gives.
// After Pillow's src/libImaging/Resample.c: one pass along the rows, one along the columns, weights of 22 bits.

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: bicubic },
  lanczos: { support: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
};
const ONE = 2 ** 22;

function bicubic(x) {
  const far = Math.abs(x);
  if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
  return far < 2 ? ((-0.5 * far + 2.5) * far - 4) * far + 2 : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

// For each pixel out: the first pixel in that it sees, and the weights of that one and the next ones.
function weights(from, to, filter) {
  const scale = from / to;
  const stretch = Math.max(scale, 1); // a smaller picture sees more of the larger one: antialiasing
  const support = filter.support * stretch;
  return Array.from({ length: to }, (_, out) => {
    const centre = (out + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const raw = Array.from({ length: end - first }, (_, i) => filter.weight((i + first - centre + 0.5) / stretch));
    const sum = raw.reduce((a, b) => a + b, 0);
    return { first, values: raw.map((w) => Math.trunc((w / sum) * ONE + (w / sum < 0 ? -0.5 : 0.5))) };
  });
}

// One pass: `lines` lines of `from` pixels become as many of `to`. A step is the distance of two pixels of a line, a
// stride that of two lines, both in bytes.
function pass(source, { lines, from, to, step, stride, outStep, outStride, filter }) {
  const out = new Uint8ClampedArray(lines * to * 3);
  weights(from, to, filter).forEach(({ first, values }, pixel) => {
    for (let line = 0; line < lines; line++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = ONE / 2;
        let at = line * stride + first * step + channel;
        for (let i = 0; i < values.length; i++, at += step) sum += source[at] * values[i];
        out[line * outStride + pixel * outStep + channel] = Math.floor(sum / ONE);
      }
    }
  });
  return out;
}

function nearest(rgba, width, height, toWidth, toHeight) {
  const [columns, rows] = [places(width, toWidth), places(height, toHeight)];
  const out = new Uint8ClampedArray(toWidth * toHeight * 3);
  let at = 0;
  for (const row of rows) {
    for (const column of columns) {
      for (let channel = 0; channel < 3; channel++) out[at++] = rgba[4 * (row * width + column) + channel];
    }
  }
  return out;
}

// Added up, not multiplied: where a place falls between two pixels, the error of the sum decides in Pillow too.
function places(from, to) {
  const step = from / to;
  let place = step / 2;
  return Array.from({ length: to }, () => {
    const found = Math.trunc(place);
    place += step;
    return found;
  });
}

// RGBA pixels -> RGB pixels of another size. Unknown filters are bicubic, as in pixels.py.
export function resize(rgba, width, height, toWidth, toHeight, interpolation) {
  if (interpolation === "nearest") return nearest(rgba, width, height, toWidth, toHeight);
  const filter = FILTERS[interpolation] ?? FILTERS.bicubic;
  const rows = pass(rgba, {
    lines: height, from: width, to: toWidth, filter,
    step: 4, stride: 4 * width, outStep: 3, outStride: 3 * toWidth,
  });
  return pass(rows, {
    lines: toWidth, from: height, to: toHeight, filter,
    step: 3 * toWidth, stride: 3, outStep: 3 * toWidth, outStride: 3,
  });
}

function halfToEven(x) {
  return Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
}

// The size that a picture gets, and where in that the network's part begins.
function frame(width, height, { size, crop, resize: how }) {
  if (how === "squash") return { wide: size, high: size, left: 0, top: 0 };
  const edge = Math.trunc(size / crop);
  const longer = Math.trunc((edge * Math.max(width, height)) / Math.min(width, height));
  const [wide, high] = width <= height ? [edge, longer] : [longer, edge];
  return { wide, high, left: halfToEven((wide - size) / 2), top: halfToEven((high - size) / 2) };
}

// `from_input` of pixels.py: corners in pixels of the network's input -> of the picture, cut at its edges.
export function fromInput(corners, width, height, input) {
  const { wide, high, left, top } = frame(width, height, input);
  return corners.map((value, side) => {
    const [start, from, to] = side % 2 ? [top, high, height] : [left, wide, width];
    return Math.min(Math.max(((value + start) * to) / from, 0), to);
  });
}

// `fit` of pixels.py: RGBA pixels of an upright picture -> (size, size, 3), as labels.json's `input` says.
export function fit(rgba, width, height, input) {
  const { size, interpolation } = input;
  const { wide, high, left, top } = frame(width, height, input);
  const whole = resize(rgba, width, height, wide, high, interpolation);
  if (wide === size && high === size) return whole;
  const out = new Uint8ClampedArray(size * size * 3);
  for (let row = 0; row < size; row++) {
    const from = 3 * ((top + row) * wide + left);
    out.set(whole.subarray(from, from + 3 * size), 3 * row * size);
  }
  return out;
}
