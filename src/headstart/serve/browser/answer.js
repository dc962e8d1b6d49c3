// Where answers come from in the static demo: the model runs here, by onnxruntime-web. No picture leaves the browser.
import * as ort from "./ort/ort.wasm.min.mjs";
import { fit, fromInput } from "./resize.js";

const MOST = 12_000_000; // pixels that a phone's canvas can hold; larger pictures are halved first

ort.env.wasm.numThreads = 1; // more would need headers that not every web host can send
ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;

let model;
let session;

export async function about() {
  const response = await fetch("model.json");
  if (!response.ok) throw new Error(`model.json cannot be fetched (${response.status})`);
  model = await response.json();
  session = ort.InferenceSession.create(new URL("model.onnx", import.meta.url).href);
  session.catch(() => {}); // told with the first answer
  return { ...model, where: "The model runs in your browser: your pictures stay here." };
}

// An Answer as the server's API has it. Throws an Error whose message is a sentence.
export async function answer(blob, name) {
  const { rgba, width, height, upright } = await pixels(blob);
  const { size } = model.input;
  const seen = new ort.Tensor("uint8", Uint8Array.from(fit(rgba, width, height, model.input)), [1, size, size, 3]);
  if (model.task === "detect") {
    const found = await (await session).run({ pixels: seen }, ["boxes", "scores", "labels"]);
    return { name, ...upright, label: null, probabilities: null, boxes: boxes(found, upright) };
  }
  const found = await (await session).run({ pixels: seen }, ["probabilities"]);
  const values = [...found.probabilities.data];
  const probabilities = Object.fromEntries(model.labels.map((label, number) => [label, values[number]]));
  return { name, ...upright, probabilities, label: model.labels[values.indexOf(Math.max(...values))], boxes: null };
}

// Every box with a score, the surest first, in pixels of the upright picture.
function boxes(found, { width, height }) {
  const rows = [];
  found.scores.data.forEach((score, number) => {
    const corners = found.boxes.data.subarray(4 * number, 4 * number + 4);
    const box = fromInput([...corners], width, height, model.input);
    const [left, top, right, bottom] = box;
    if (score > 0 && right > left && bottom > top) {
      rows.push({ label: model.labels[Number(found.labels.data[number])], score, box });
    }
  });
  return rows;
}

// Upright RGBA pixels, transparent parts on white, colours as stored: what door.py makes of a picture.
export async function pixels(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("not a picture that this browser can read");
  }
  const upright = { width: bitmap.width, height: bitmap.height };
  let share = 1;
  while (upright.width * upright.height * share * share > MOST) share /= 2;
  const [width, height] = [Math.ceil(upright.width * share), Math.ceil(upright.height * share)];
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
