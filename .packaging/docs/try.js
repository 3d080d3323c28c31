// Of the page on which the HTTP API is tried; OPERATIONS is put in its place by build_docs.py.
const operations = OPERATIONS;
const form = document.getElementById("try");
const fields = document.getElementById("try-parameters");
const answer = document.getElementById("try-answer");
const { operation, server, token, body } = form.elements;
for (const [index, each] of operations.entries()) operation.append(new Option(`${each.method} ${each.path}`, index));
const chosen = () => operations[Number(operation.value)];
function show() {
  fields.replaceChildren(
    ...chosen().parameters.map((each) => {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { name: each.name, required: each.in === "path" });
      input.dataset.in = each.in;
      label.append(`${each.name} `, input, ` ${each.description}`);
      const line = document.createElement("p");
      line.append(label);
      return line;
    }),
  );
  document.getElementById("try-body").hidden = !chosen().body;
  body.value = chosen().body ?? "";
}
operation.onchange = show;
show();
form.onsubmit = async (event) => {
  event.preventDefault();
  let path = chosen().path;
  const query = new URLSearchParams();
  const headers = {};
  if (token.value) headers.Authorization = `Bearer ${token.value}`;
  for (const { name, value, dataset } of fields.querySelectorAll("input")) {
    if (dataset.in === "path") path = path.replace(`{${name}}`, encodeURIComponent(value));
    else if (value && dataset.in === "query") query.set(name, value);
    else if (value && dataset.in === "header") headers[name] = value;
  }
  const url = `${server.value.replace(/[/]+$/, "")}${path}${query.size ? `?${query}` : ""}`;
  const init = { method: chosen().method, headers, redirect: "manual" };
  if (chosen().body && body.value) init.body = body.value;
  answer.hidden = false;
  answer.textContent = `${init.method} ${url}\n`;
  try {
    const response = await fetch(url, init);
    const text = await response.text();
    answer.textContent += `${response.status} ${response.statusText}\n\n${pretty(text)}`;
  } catch (error) {
    answer.textContent += `No answer: ${error.message}. Is the server there, and does it answer this origin?`;
  }
};
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
