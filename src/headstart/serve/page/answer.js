// Where answers come from: the server that sent this page. The static demo has another file of this name.

export async function about() {
  const response = await fetch("model");
  if (!response.ok) throw new Error(`the server says ${response.status}`);
  return { ...(await response.json()), where: "Your pictures go to the server that sent this page, and are not kept." };
}

// An Answer as the server's API has it. Throws an Error whose message is a sentence.
export async function answer(blob, name) {
  const form = new FormData();
  form.append("files", blob, name);
  let response;
  try {
    response = await fetch("predict", { method: "POST", body: form });
  } catch {
    throw new Error("the server cannot be reached");
  }
  const found = await response.json().catch(() => ({ detail: `the server says ${response.status}` }));
  if (!response.ok) throw new Error(found.detail.replace(`${name}: `, ""));
  return found.answers[0];
}
