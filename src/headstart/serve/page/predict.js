// Predictions by the server that sent this page. The static demo has a file of the same name that runs the model itself.

// The server's ModelInfo, and what happens to the visitor's pictures, in a sentence.
export async function fetchModelInfo() {
  const response = await fetch("model");
  if (!response.ok) throw new Error(`the server responded with status ${response.status}`);
  return { ...(await response.json()), privacy: "Pictures are sent to the server of this page, and not stored." };
}

// An ImagePrediction of the server's API. Throws an Error whose message is a sentence.
export async function predict(blob, name) {
  const form = new FormData();
  form.append("files", blob, name);
  let response;
  try {
    response = await fetch("predict", { method: "POST", body: form });
  } catch {
    throw new Error("the server cannot be reached");
  }
  const body = await response.json().catch(() => ({ detail: `the server responded with status ${response.status}` }));
  if (!response.ok) throw new Error(body.detail.replace(`${name}: `, ""));
  return body.predictions[0];
}
