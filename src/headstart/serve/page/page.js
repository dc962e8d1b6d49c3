// The page: pictures in by drop, paste, camera, file or gallery; answers out as bars, or boxes on the picture.
import { about, answer } from "./answer.js";

const get = (id) => document.getElementById(id);
const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const KEPT = 20; // answers shown; older ones go

let model = { labels: [], examples: [], said: {}, figures: [], threshold: 0.5 };
let queue = Promise.resolve();

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ---- in ----------------------------------------------------------------------------------------------------------

// One after the other: the answers come in the order asked, and each time is that of one picture.
function ask(pictures) {
  for (const picture of pictures) queue = queue.then(() => tell(picture));
  return queue;
}

function fromFiles(files) {
  const pictures = [...files].map((file) => ({ blob: file, name: file.name || "pasted picture" }));
  if (pictures.length) ask(pictures);
}

async function fromExample(example) {
  get("status").textContent = "Fetching the picture …";
  const response = await fetch(example.picture).catch(() => null);
  if (!response?.ok) return problem(example.picture, new Error("this test picture cannot be fetched"));
  return ask([{ blob: await response.blob(), name: example.picture.split("/").pop(), example }]);
}

function listen() {
  get("choose").addEventListener("click", () => get("files").click());
  for (const input of [get("files"), get("shot")]) {
    input.addEventListener("change", () => {
      fromFiles(input.files);
      input.value = ""; // the same file may be chosen again
    });
  }
  // Dropped anywhere: a picture that misses the field would otherwise replace the page.
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
  get("least").addEventListener("input", showThreshold);
  get("camera").addEventListener("click", openCamera);
  get("close").addEventListener("click", () => get("viewfinder").close());
  get("viewfinder").addEventListener("close", closeCamera);
  get("take").addEventListener("click", takePicture);
}

// A phone has a better camera app than this page; elsewhere, and where a page may see the camera, a small viewfinder.
async function openCamera() {
  if (matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices?.getUserMedia) return get("shot").click();
  try {
    get("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    get("viewfinder").showModal();
  } catch (error) {
    problem("Camera", new Error(`cannot be used (${error.message || error.name})`));
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

// ---- out ---------------------------------------------------------------------------------------------------------

async function tell({ blob, name, example }) {
  get("status").textContent = `Looking at ${name} …`;
  const begin = performance.now();
  try {
    const found = await answer(blob, name);
    show({ found, blob, name, example, milliseconds: performance.now() - begin });
  } catch (error) {
    problem(name, error);
  }
}

function problem(name, error) {
  const line = element("p", `${name}: ${error.message}`, "problem");
  get("answers").prepend(line);
  get("status").textContent = line.textContent;
  trim();
}

function show({ found, blob, name, example, milliseconds }) {
  const card = get("one").content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  const picture = find("img");
  picture.src = URL.createObjectURL(blob);
  picture.alt = example?.label && !found.boxes ? `Test picture: ${example.label}` : `Your picture ${name}`;
  find("figcaption").textContent = `${name}, ${found.width} × ${found.height}`;
  if (example?.credit) find("figcaption").append(element("small", example.credit, "credit"));
  find(".time").textContent =
    found.milliseconds === undefined
      ? `${milliseconds.toFixed(0)} ms`
      : `${found.milliseconds.toFixed(0)} ms on the server, ${milliseconds.toFixed(0)} ms in all`;
  if (found.boxes) showBoxes(card, found, example);
  else showBars(card, found, example);
  get("answers").prepend(card);
  trim();
  showThreshold();
  card.scrollIntoView({ block: "nearest" });
  get("status").textContent = `${name}: ${card.querySelector("h3").textContent}`;
}

function trim() {
  for (const old of [...get("answers").children].slice(KEPT)) {
    const picture = old.querySelector(".frame img");
    if (picture) URL.revokeObjectURL(picture.src);
    old.remove();
  }
}

function showBars(card, found, example) {
  const ranked = Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]);
  const [label, probability] = ranked[0];
  card.querySelector("h3").textContent = `${label}, ${percent(probability)}`;
  for (const [name, value] of ranked.slice(0, 5)) {
    const row = element("li");
    const bar = element("span", "", "bar");
    bar.style.setProperty("--share", value);
    row.append(element("span", name, "name"), bar, element("span", percent(value), "value"));
    card.querySelector(".bars").append(row);
  }
  if (ranked.length > 5) card.querySelector(".bars").append(element("li", `and ${ranked.length - 5} more labels`, "soft"));
  if (example?.label) {
    const right = example.label === label;
    const truth = card.querySelector(".truth");
    truth.textContent = right ? `Right: it is ${example.label}.` : `Wrong: it is ${example.label}.`;
    truth.classList.add(right ? "right" : "wrong");
  }
  showKnown(card, label);
}

// What the exam knows of answers like this one.
function showKnown(card, label) {
  const said = model.said[label];
  if (!said) return;
  const right = said.really[label] ?? 0;
  const wrong = Object.entries(said.really)
    .filter(([name]) => name !== label)
    .map(([name, count]) => `${count} ${count === 1 ? "was" : "were"} ${name}`);
  card.querySelector(".known").textContent =
    `Of ${said.times} test pictures with this answer, ${right} were ${label} (${percent(right / said.times, 0)})` +
    (wrong.length ? `; ${wrong.slice(0, 3).join(", ")}${wrong.length > 3 ? " …" : ""}. Wrong like this before:` : ".");
  for (const other of model.examples.filter((e) => e.predicted === label && e.label !== label).slice(0, 4)) {
    const row = element("li");
    const small = element("img");
    small.src = other.thumbnail;
    small.alt = `${other.label}, called ${label}`;
    small.title = titled(small.alt, other);
    row.append(small);
    card.querySelector(".like").append(row);
  }
}

// What a small test picture shows, and whose it is.
function titled(text, { credit }) {
  return credit ? `${text} (${credit})` : text;
}

function showBoxes(card, found, example) {
  const frame = card.querySelector(".frame");
  const bars = card.querySelector(".bars");
  found.boxes.forEach(({ label, score, box }, number) => {
    const [left, top, right, bottom] = box;
    const drawn = element("div", "", `box kind-${Math.max(0, model.labels.indexOf(label)) % 4}`);
    drawn.append(element("span", `${label} ${percent(score, 0)}`));
    for (const [side, share] of [
      ["left", left / found.width],
      ["top", top / found.height],
      ["width", (right - left) / found.width],
      ["height", (bottom - top) / found.height],
    ]) {
      drawn.style.setProperty(side, `${100 * share}%`);
    }
    const row = element("li");
    const bar = element("span", "", "bar");
    bar.style.setProperty("--share", score);
    row.append(element("span", `${number + 1}. ${label}`, "name"), bar, element("span", percent(score), "value"));
    drawn.dataset.score = row.dataset.score = score;
    frame.append(drawn);
    bars.append(row);
  });
  card.dataset.boxes = found.boxes.length;
  if (example?.fault) {
    const fault = `Known from the test: here it ${example.fault}, at a score of at least ${percent(model.threshold, 0)}.`;
    card.querySelector(".truth").textContent = fault;
    card.querySelector(".truth").classList.add("wrong");
  }
}

// Boxes below the threshold are hidden, on the picture and in the list; the headings count the others.
function showThreshold() {
  const least = Number(get("least").value);
  const cards = document.querySelectorAll("[data-boxes]");
  get("threshold").hidden = !cards.length;
  get("least-shown").textContent = percent(least, 0);
  for (const card of cards) {
    for (const drawn of card.querySelectorAll("[data-score]")) drawn.hidden = Number(drawn.dataset.score) < least;
    const count = card.querySelectorAll(".box:not([hidden])").length;
    card.querySelector("h3").textContent = `${count} of ${card.dataset.boxes} boxes`;
  }
}

// ---- the model ---------------------------------------------------------------------------------------------------

function showModel() {
  const detects = model.task === "detect";
  const few = model.labels.length <= 3 ? model.labels.join(detects ? ", " : " or ") : `${model.labels.length} labels`;
  const title = detects ? `Find ${few}` : `${few[0].toUpperCase()}${few.slice(1)}?`;
  get("title").textContent = document.title = title;
  get("where").textContent = model.where;
  get("least").value = model.threshold;
  get("model").hidden = !model.figures.length && !model.card;
  get("exam").textContent = model.pictures
    ? `Measured on ${model.pictures} test pictures that it did not learn from, with 95 % intervals.`
    : "";
  for (const figure of model.figures) {
    const row = element("div");
    const value = element("dd", percent(figure.value));
    value.append(element("small", `${percent(figure.low)} to ${percent(figure.high)}`));
    if (figure.note) value.append(element("small", figure.note, "note"));
    row.append(element("dt", figure.name), value);
    get("figures").append(row);
  }
  const confusions = Object.entries(model.said)
    .flatMap(([said, { really }]) => Object.entries(really).map(([label, count]) => ({ said, label, count })))
    .filter(({ said, label }) => said !== label)
    .sort((a, b) => b.count - a.count);
  get("mistaken").hidden = !confusions.length;
  for (const { said, label, count } of confusions.slice(0, 6)) {
    get("confusions").append(element("li", `${count} × ${confusion(label, said)}`));
  }
  get("card").textContent = model.card;
  get("card").parentElement.hidden = !model.card;
  showExamples();
}

// A detector's exam counts boxes: "background" is what it calls a box that it misses, and where it finds one too many.
function confusion(label, said) {
  if (model.task !== "detect") return `${label} called ${said}`;
  if (said === "background") return `${label} missed`;
  return label === "background" ? `${said} found where nothing is` : `${label} called ${said}`;
}

function showExamples() {
  get("gallery").hidden = !model.examples.length;
  for (const example of model.examples) {
    const wrong = example.fault || (model.task !== "detect" && example.predicted !== example.label);
    const button = element("button", "", "example");
    const small = element("img");
    [small.src, small.loading] = [example.thumbnail, "lazy"];
    small.alt = (model.task === "detect" ? null : example.label) ?? "Test picture";
    button.type = "button";
    button.append(small);
    if (wrong) {
      button.append(element("span", "✗", "mark"));
      small.alt += example.fault ? `, in which it ${example.fault}` : `, which it calls ${example.predicted}`;
    }
    button.title = titled(small.alt, example);
    button.addEventListener("click", () => fromExample(example));
    const row = element("li");
    row.append(button);
    get("examples").append(row);
  }
}

listen();
try {
  model = { ...model, ...(await about()) };
  showModel();
  document.body.dataset.ready = "yes";
} catch (error) {
  problem("Model", error);
}
