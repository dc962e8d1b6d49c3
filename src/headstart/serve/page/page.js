// The page: pictures by drop, paste, camera, file or gallery -> predictions as bars, or as boxes on the picture.
import { fetchModelInfo, predict } from "./predict.js";

const get = (id) => document.getElementById(id);
const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const MAX_SHOWN = 20; // predictions on the page; older ones are removed

let model = { labels: [], examples: [], confusion: {}, outcomes: {}, metrics: [], threshold: 0.5 };
let queue = Promise.resolve();

function element(name, text = "", className = "") {
  const created = document.createElement(name);
  created.textContent = text;
  if (className) created.className = className;
  return created;
}

// ---- input -------------------------------------------------------------------------------------------------------

// One after the other: predictions come in the order of the pictures, and each time is that of one picture.
function enqueue(pictures) {
  for (const picture of pictures) queue = queue.then(() => predictAndShow(picture));
  return queue;
}

function fromFiles(files) {
  const pictures = [...files].map((file) => ({ blob: file, name: file.name || "pasted picture" }));
  if (pictures.length) enqueue(pictures);
}

async function fromExample(example) {
  get("status").textContent = "Fetching the picture …";
  const response = await fetch(example.picture).catch(() => null);
  if (!response?.ok) return showError(example.picture, new Error("this test picture cannot be fetched"));
  return enqueue([{ blob: await response.blob(), name: example.picture.split("/").pop(), example }]);
}

function listen() {
  get("choose").addEventListener("click", () => get("files").click());
  for (const input of [get("files"), get("shot")]) {
    input.addEventListener("change", () => {
      fromFiles(input.files);
      input.value = ""; // the same file may be chosen again
    });
  }
  // On the whole document: a picture dropped beside the field would otherwise replace the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    get("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) get("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    get("drop").classList.remove("over");
    fromFiles(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => fromFiles(event.clipboardData.files));
  get("min-score").addEventListener("input", applyThreshold);
  get("camera").addEventListener("click", openCamera);
  get("close").addEventListener("click", () => get("viewfinder").close());
  get("viewfinder").addEventListener("close", closeCamera);
  get("take").addEventListener("click", takePicture);
}

// A phone has a better camera app than this page; elsewhere, and where a page may use the camera, a small viewfinder.
async function openCamera() {
  if (matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices?.getUserMedia) return get("shot").click();
  try {
    get("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    get("viewfinder").showModal();
  } catch (error) {
    showError("Camera", new Error(`cannot be used (${error.message || error.name})`));
  }
}

function closeCamera() {
  for (const track of get("video").srcObject?.getTracks() ?? []) track.stop();
  get("video").srcObject = null;
  get("camera").focus();
}

async function takePicture() {
  const video = get("video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  get("viewfinder").close();
  canvas.toBlob((blob) => fromFiles([new File([blob], "camera.jpg", { type: blob.type })]), "image/jpeg", 0.95);
}

// ---- output ------------------------------------------------------------------------------------------------------

async function predictAndShow({ blob, name, example }) {
  get("status").textContent = `Predicting ${name} …`;
  const begin = performance.now();
  try {
    const prediction = await predict(blob, name);
    showPrediction({ prediction, blob, name, example, milliseconds: performance.now() - begin });
  } catch (error) {
    showError(name, error);
  }
}

function showError(name, error) {
  const line = element("p", `${name}: ${error.message}`, "error");
  get("predictions").prepend(line);
  get("status").textContent = line.textContent;
  removeOldest();
}

function showPrediction({ prediction, blob, name, example, milliseconds }) {
  const card = get("prediction").content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  const picture = find("img");
  picture.src = URL.createObjectURL(blob);
  picture.alt = example?.label && !prediction.boxes ? `Test picture: ${example.label}` : `Your picture ${name}`;
  find("figcaption").textContent = `${name}, ${prediction.width} × ${prediction.height}`;
  if (example?.credit) find("figcaption").append(element("small", example.credit, "credit"));
  find(".time").textContent =
    prediction.milliseconds === undefined
      ? `${milliseconds.toFixed(0)} ms`
      : `${prediction.milliseconds.toFixed(0)} ms on the server, ${milliseconds.toFixed(0)} ms in total`;
  if (prediction.boxes) showBoxes(card, prediction, example);
  else showProbabilities(card, prediction, example);
  get("predictions").prepend(card);
  removeOldest();
  applyThreshold();
  card.scrollIntoView({ block: "nearest" });
  get("status").textContent = `${name}: ${card.querySelector("h3").textContent}`;
}

function removeOldest() {
  for (const old of [...get("predictions").children].slice(MAX_SHOWN)) {
    const picture = old.querySelector(".frame img");
    if (picture) URL.revokeObjectURL(picture.src);
    old.remove();
  }
}

function barRow(name, value) {
  const row = element("li");
  const bar = element("span", "", "bar");
  bar.style.setProperty("--share", value);
  row.append(element("span", name, "name"), bar, element("span", percent(value), "value"));
  return row;
}

function showProbabilities(card, prediction, example) {
  const ranked = Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]);
  const [label, probability] = ranked[0];
  card.querySelector("h3").textContent = headline(prediction, label, probability);
  const bars = card.querySelector(".bars");
  bars.append(...ranked.slice(0, 5).map(([name, value]) => barRow(name, value)));
  if (ranked.length > 5) bars.append(element("li", `and ${ranked.length - 5} more labels`, "muted"));
  if (example?.label) {
    const [correct, sentence] = judge(prediction, label, example.label);
    const truth = card.querySelector(".truth");
    truth.textContent = sentence;
    truth.classList.add(correct ? "correct" : "wrong");
  }
  explain(card, prediction);
  if (!prediction.unknown) showPrecision(card, label);
}

// Why no single label is named.
function explain(card, { labels_in_set: labels, unknown }) {
  if (unknown) {
    card.querySelector(".why").textContent =
      "This picture is unlike all training pictures; the bars show which label would be nearest.";
  } else if (labels?.length > 1) {
    card.querySelector(".why").textContent =
      `The picture may be ${labels.length > 3 ? `any of ${labels.length} labels` : "either of these"}: ` +
      "the probabilities do not decide.";
  }
}

// The label, "cat or dog", or "none of these"; a prediction without an answer is its most probable label.
function headline({ answer, labels_in_set: labels, unknown }, label, probability) {
  if (unknown) return `${answer} (nearest: ${label}, ${percent(probability)})`;
  return labels?.length > 1 ? answer : `${label}, ${percent(probability)}`;
}

// Whether a test picture's label is what the answer says, in a sentence.
function judge({ labels_in_set: labels, unknown }, label, actual) {
  if (unknown) return [false, `Turned away: the label is ${actual}.`];
  if (labels?.length > 1) {
    const held = labels.includes(actual);
    return [held, `${held ? "Among them" : "Not among them"}: the label is ${actual}.`];
  }
  return [actual === label, `${actual === label ? "Correct" : "Wrong"}: the label is ${actual}.`];
}

// How often this prediction was correct on the test set, and test pictures with the same wrong prediction.
function showPrecision(card, predicted) {
  const column = model.confusion[predicted];
  if (!column) return;
  const correct = column.actual[predicted] ?? 0;
  const wrong = Object.entries(column.actual)
    .filter(([label]) => label !== predicted)
    .map(([label, count]) => `${count} ${label}`);
  const mistakes = model.examples.filter((e) => e.predicted === predicted && e.label !== predicted).slice(0, 4);
  card.querySelector(".precision").textContent =
    `Of ${column.total} test pictures predicted as ${predicted}, ${correct} ${correct === 1 ? "is" : "are"} correct ` +
    `(precision ${percent(correct / column.total, 0)})` +
    (wrong.length ? `; actual labels of the others: ${wrong.slice(0, 3).join(", ")}${wrong.length > 3 ? " …" : ""}` : "") +
    (mistakes.length ? ". Mistakes of this kind:" : ".");
  for (const example of mistakes) {
    const row = element("li");
    const thumbnail = element("img");
    thumbnail.src = example.thumbnail;
    thumbnail.alt = `${example.label} predicted as ${predicted}`;
    thumbnail.title = withCredit(thumbnail.alt, example);
    row.append(thumbnail);
    card.querySelector(".mistakes").append(row);
  }
}

function withCredit(text, { credit }) {
  return credit ? `${text} (${credit})` : text;
}

function showBoxes(card, prediction, example) {
  prediction.boxes.forEach(({ label, score, box }, index) => {
    const [left, top, right, bottom] = box;
    const drawn = element("div", "", `box color-${Math.max(0, model.labels.indexOf(label)) % 4}`);
    drawn.append(element("span", `${label} ${percent(score, 0)}`));
    for (const [property, share] of [
      ["left", left / prediction.width],
      ["top", top / prediction.height],
      ["width", (right - left) / prediction.width],
      ["height", (bottom - top) / prediction.height],
    ]) {
      drawn.style.setProperty(property, `${100 * share}%`);
    }
    const row = barRow(`${index + 1}. ${label}`, score);
    drawn.dataset.score = row.dataset.score = score;
    card.querySelector(".frame").append(drawn);
    card.querySelector(".bars").append(row);
  });
  card.dataset.boxes = prediction.boxes.length;
  if (example?.mistake) {
    const truth = card.querySelector(".truth");
    truth.textContent = `Mistake in the test at a score threshold of ${percent(model.threshold, 0)}: ${example.mistake}.`;
    truth.classList.add("wrong");
  }
}

// Boxes below the threshold are hidden, on the picture and in the list; the headings count the others.
function applyThreshold() {
  const minScore = Number(get("min-score").value);
  const cards = document.querySelectorAll("[data-boxes]");
  get("threshold").hidden = !cards.length;
  get("min-score-shown").textContent = percent(minScore, 0);
  for (const card of cards) {
    for (const scored of card.querySelectorAll("[data-score]")) scored.hidden = Number(scored.dataset.score) < minScore;
    const count = card.querySelectorAll(".box:not([hidden])").length;
    card.querySelector("h3").textContent = `${count} of ${card.dataset.boxes} boxes`;
  }
}

// ---- the model ---------------------------------------------------------------------------------------------------

function showModel() {
  const detects = model.task === "detect";
  const labels = model.labels.length <= 3 ? model.labels.join(detects ? ", " : " or ") : `${model.labels.length} labels`;
  const title = detects ? `Detect ${labels}` : `Classify: ${labels}`;
  get("title").textContent = document.title = title;
  get("privacy").textContent = model.privacy;
  get("min-score").value = model.threshold;
  get("model").hidden = !model.metrics.length && !model.card;
  get("test-set").textContent = model.pictures
    ? `Metrics on ${model.pictures} test pictures, with 95 % confidence intervals.`
    : "";
  for (const metric of model.metrics) {
    const row = element("div");
    const value = element("dd", percent(metric.value));
    value.append(element("small", `${percent(metric.low)} to ${percent(metric.high)}`));
    if (metric.note) value.append(element("small", metric.note, "note"));
    row.append(element("dt", metric.name), value);
    get("metrics").append(row);
  }
  get("outcomes").textContent = describeOutcomes(model.outcomes);
  const confusions = Object.entries(model.confusion)
    .flatMap(([predicted, column]) =>
      Object.entries(column.actual).map(([actual, count]) => ({ actual, predicted, count })),
    )
    .filter(({ actual, predicted }) => actual !== predicted)
    .sort((a, b) => b.count - a.count);
  get("confused").hidden = !confusions.length;
  for (const { actual, predicted, count } of confusions.slice(0, 6)) {
    get("confusions").append(element("li", `${count} × ${describeConfusion(actual, predicted)}`));
  }
  get("card").textContent = model.card;
  get("card").parentElement.hidden = !model.card;
  showExamples();
}

// A detector's boxes at the threshold: a wrong label and a second box on one object are other errors than nothing there.
function describeOutcomes({ correct, wrong_label, second_box, nothing_there, missed }) {
  if (correct === undefined) return "";
  const detections = correct + wrong_label + second_box + nothing_there;
  return (
    `Of ${detections} detections at a score threshold of ${percent(model.threshold, 0)}, ${correct} are correct, ` +
    `${wrong_label} have a wrong label, ${second_box} are a second box on an object that has one already, ` +
    `${nothing_there} lie where nothing is annotated; ${missed} objects are missed.`
  );
}

// In a detector's confusion matrix `background` is the prediction of a missed box, and the label of a false positive.
function describeConfusion(actual, predicted) {
  if (model.task === "detect" && predicted === "background") return `${actual} missed (false negative)`;
  if (model.task === "detect" && actual === "background") return `${predicted} on background (false positive)`;
  return `${actual} predicted as ${predicted}`;
}

function showExamples() {
  get("gallery").hidden = !model.examples.length;
  for (const example of model.examples) {
    const wrong = example.mistake || (model.task !== "detect" && example.predicted !== example.label);
    const button = element("button", "", "example");
    const thumbnail = element("img");
    [thumbnail.src, thumbnail.loading] = [example.thumbnail, "lazy"];
    thumbnail.alt = (model.task === "detect" ? null : example.label) ?? "Test picture";
    button.type = "button";
    button.append(thumbnail);
    if (wrong) {
      button.append(element("span", "✗", "mark"));
      thumbnail.alt += example.mistake ? `: ${example.mistake}` : ` predicted as ${example.predicted}`;
    }
    button.title = withCredit(thumbnail.alt, example);
    button.addEventListener("click", () => fromExample(example));
    const row = element("li");
    row.append(button);
    get("examples").append(row);
  }
}

listen();
try {
  model = { ...model, ...(await fetchModelInfo()) };
  showModel();
  document.body.dataset.ready = "yes";
} catch (error) {
  showError("Model", error);
}
