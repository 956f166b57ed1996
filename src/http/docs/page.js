"use strict";
// Everything that is shown comes in as text; nothing of an answer is ever markup.
let token = "";
const meanings = [
  [/collapsed/, "waited for a statement that another request had caused"],
  [/fwd=uri-miss/, "nothing was kept: Postgres was asked"],
  [/fwd=stale.*invalidated/, "a write had made the kept answer wrong: Postgres was asked"],
  [/fwd=stale/, "what was kept had expired: Postgres was asked"],
  [/fwd=request/, "the request asked for Postgres"],
  [/stale-while-revalidate/, "an old answer, while it is refreshed"],
  [/stale-if-error/, "an old answer, since Postgres could not be asked"],
  [/hit/, "from memory"],
];

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function address(form) {
  const url = new URL(form.dataset.path, location.origin);
  for (const field of form.querySelectorAll("[name]")) {
    if (field.value !== "" || field.dataset.empty === "sent") url.searchParams.append(field.name, field.value);
  }
  return url;
}

function quoted(text) {
  return "'" + text.replaceAll("'", "'\\''") + "'";
}

function curl(form) {
  const auth = token ? " -H " + quoted("Authorization: Bearer $TOKEN").replaceAll("'", '"') : "";
  return "curl -i" + auth + " " + quoted(address(form).href);
}

function pretty(text, kind) {
  if (!kind.includes("json")) return text;
  try {
    // Digits are kept as they came: a parse would round them.
    JSON.parse(text);
    return indent(text);
  } catch {
    return text;
  }
}

// White space alone, outside of strings.
function indent(text) {
  let out = "", depth = 0, within = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (within) {
      out += c;
      if (c === "\\") out += text[++i];
      else if (c === '"') within = false;
    } else if (c === '"') { within = true; out += c; }
    else if (c === "{" || c === "[") {
      const rest = text.slice(i + 1).match(/^\s*[}\]]/);
      if (rest) { out += c + rest[0].trim(); i += rest[0].length; }
      else out += c + "\n" + "  ".repeat(++depth);
    } else if (c === "}" || c === "]") out += "\n" + "  ".repeat(--depth) + c;
    else if (c === ",") out += ",\n" + "  ".repeat(depth);
    else if (c === ":") out += ": ";
    else if (!/\s/.test(c)) out += c;
  }
  return out;
}

async function run(form) {
  const shown = form.parentElement.querySelector(".answer");
  const button = form.querySelector("button");
  button.disabled = true;
  shown.replaceChildren(element("p", "…", "soft"));
  const began = performance.now();
  try {
    const headers = { Accept: "application/json" };
    if (token) headers.Authorization = "Bearer " + token;
    const answer = await fetch(address(form), { headers, cache: "no-store" });
    const text = await answer.text();
    const took = performance.now() - began;
    const status = element("p");
    status.append(element("span", answer.status + " " + answer.statusText, "status " + (answer.ok ? "good" : "bad")));
    status.append(element("span", "  in " + took.toFixed(1) + " ms", "soft"));
    const list = element("dl");
    for (const name of ["Cache-Status", "Age", "ETag", "Cache-Control", "Retry-After", "WWW-Authenticate"]) {
      const value = answer.headers.get(name);
      if (value === null) continue;
      const meaning = name === "Cache-Status" ? meanings.find(([pattern]) => pattern.test(value)) : undefined;
      list.append(element("dt", name));
      list.append(element("dd", value + (meaning ? "  — " + meaning[1] : ""), "mono"));
    }
    const most = 100000;
    const body = text.length > most ? text.slice(0, most) + "\n… and " + (text.length - most) + " characters more" : pretty(text, answer.headers.get("Content-Type") || "");
    shown.replaceChildren(status, list, element("pre", body));
  } catch (error) {
    shown.replaceChildren(element("p", "No answer: " + error.message, "status bad"));
  }
  button.disabled = false;
}

function begin(root) {
  for (const hidden of root.querySelectorAll(".js")) hidden.classList.remove("js");
  for (const form of root.querySelectorAll("form.try")) {
    const line = form.parentElement.querySelector(".curl");
    const update = () => { line.textContent = curl(form); };
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => { event.preventDefault(); update(); run(form); });
    update();
  }
}

const access = document.querySelector("form.access");
if (access) {
  access.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = access.querySelector(".said");
    token = access.querySelector("input").value.trim();
    const answer = await fetch(location.pathname, { headers: token ? { Authorization: "Bearer " + token } : {}, cache: "no-store" });
    if (!answer.ok) {
      token = "";
      said.textContent = "The token is not accepted.";
      return;
    }
    // The same page, made by the same server for who has the token: its text is as trustworthy as this page's own.
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(document.adoptNode(next.querySelector("main")));
    begin(document.querySelector("main"));
    said.textContent = token ? "Shown is what this token may ask. It is kept in this page alone." : "";
  });
}
begin(document);
