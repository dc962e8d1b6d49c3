// Predictions in the static demo: the model runs in the browser, by onnxruntime-web. No picture is uploaded.
import * as ort from "./ort/ort.wasm.min.mjs";
import { boxFromInput, inputShape, resizeToInput } from "./resize.js";
import { cutTile, mergeTiles, tileGrid } from "./tiles.js";

const MAX_PIXELS = 12_000_000; // that a phone's canvas can hold; larger pictures are halved first

ort.env.wasm.numThreads = 1; // more threads need HTTP headers that not every web host can send
ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;

let info;
let session;

// The ModelInfo in model.json, and what happens to the visitor's pictures, in a sentence.
export async function fetchModelInfo() {
  const response = await fetch("model.json");
  if (!response.ok) throw new Error(`model.json cannot be fetched (${response.status})`);
  info = await response.json();
  session = ort.InferenceSession.create(new URL("model.onnx", import.meta.url).href);
  session.catch(() => {}); // reported with the first prediction
  return { ...info, privacy: "The model runs in your browser: pictures are not uploaded." };
}

// An ImagePrediction of the server's API. Throws an Error whose message is a sentence.
export async function predict(blob, name) {
  const { rgba, width, height, upright } = await decode(blob);
  if (info.task === "detect") {
    const boxes = info.input.tiles ? await detectInTiles(rgba, width, height, upright) : await detect(rgba, width, height, upright);
    return { name, ...upright, label: null, probabilities: null, boxes };
  }
  const feeds = { pixels: toTensor(rgba, width, height) };
  const hasStrangeness = (await session).outputNames.includes("strangeness");
  const outputs = await (await session).run(feeds, ["probabilities", ...(hasStrangeness ? ["strangeness"] : [])]);
  const values = [...outputs.probabilities.data];
  const probabilities = Object.fromEntries(info.labels.map((label, index) => [label, values[index]]));
  const classification = classify(values, outputs.strangeness?.data[0] ?? null);
  return { name, ...upright, probabilities, label: classification.labels_in_set[0], ...classification, boxes: null };
}

// The network's input of a picture or tile of RGBA pixels.
function toTensor(rgba, width, height) {
  const pixels = Uint8Array.from(resizeToInput(rgba, width, height, info.input));
  return new ort.Tensor("uint8", pixels, [1, ...inputShape(info.input), 3]);
}

// Boxes of a picture or tile, in pixels of a picture of the size `upright`.
async function detect(rgba, width, height, upright) {
  const feeds = { pixels: toTensor(rgba, width, height) };
  return toBoxes(await (await session).run(feeds, ["boxes", "scores", "labels"]), upright);
}

// Tile by tile. A picture that was halved to fit a canvas has smaller things than the model has learned.
async function detectInTiles(rgba, width, height, upright) {
  const tiles = info.input.tiles;
  const found = [];
  for (const [left, top] of tileGrid(width, height, tiles)) {
    const part = cutTile(rgba, width, height, left, top, tiles.size);
    for (const { box, ...rest } of await detect(part, tiles.size, tiles.size, { width: tiles.size, height: tiles.size })) {
      const moved = box.map((value, index) => Math.min(value + (index % 2 ? top : left), index % 2 ? height : width));
      found.push({ ...rest, box: moved, corner: [left, top] });
    }
  }
  const [right, down] = [upright.width / width, upright.height / height];
  return mergeTiles(found, width, height, tiles, info.class_agnostic_nms).map(({ label, score, box }) => (
    { label, score, box: box.map((value, index) => value * (index % 2 ? down : right)) }
  )).filter(({ box: [x1, y1, x2, y2] }) => x2 > x1 && y2 > y1);
}

// What export/predictor.py makes of probabilities and strangeness; its words are those of export/answer_text.py.
function classify(values, strangeness) {
  const ranked = values.map((_, index) => index).sort((a, b) => values[b] - values[a]);
  const inSet = ranked.filter((index) => index === ranked[0] || values[index] >= (info.set_thresholds?.[index] ?? Infinity));
  const labels = inSet.map((index) => info.labels[index]);
  const unknown = info.unknown_above !== null && strangeness !== null && strangeness > info.unknown_above;
  return { answer: answerText(labels, unknown), labels_in_set: labels, unknown, strangeness };
}

function answerText(labels, unknown) {
  if (unknown) return "none of these";
  if (labels.length > 3) return `one of ${labels.length} labels`;
  return labels.length > 1 ? `${labels.slice(0, -1).join(", ")} or ${labels.at(-1)}` : labels[0];
}

// Every box with a score above 0, the highest score first, in pixels of the upright picture.
function toBoxes(outputs, { width, height }) {
  const boxes = [];
  outputs.scores.data.forEach((score, index) => {
    const corners = outputs.boxes.data.subarray(4 * index, 4 * index + 4);
    const box = boxFromInput([...corners], width, height, info.input);
    const [left, top, right, bottom] = box;
    if (score > 0 && right > left && bottom > top) {
      boxes.push({ label: info.labels[Number(outputs.labels.data[index])], score, box });
    }
  });
  return boxes;
}

// Upright RGBA pixels, transparent parts on white, colours as stored: what images/decode.py makes of a picture.
async function decode(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("not a picture that this browser can decode");
  }
  const upright = { width: bitmap.width, height: bitmap.height };
  let scale = 1;
  while (upright.width * upright.height * scale * scale > MAX_PIXELS) scale /= 2;
  const [width, height] = [Math.ceil(upright.width * scale), Math.ceil(upright.height * scale)];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return { rgba: context.getImageData(0, 0, width, height).data, width, height, upright };
}
