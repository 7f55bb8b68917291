// Two things that a page of the server cannot do alone: follow what changes, and post a form as JSON.
"use strict";

const FOLLOW_SECONDS = 5;
const SHOWN_FORCES = 12;

/** Put a newer page's parts in place of those marked `data-live`, unless someone is reading in them with the keyboard. */
async function follow() {
  if (document.visibilityState !== "visible") return;
  let text;
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    text = await response.text();
  } catch (error) {
    document.getElementById("footer").textContent = `Not up to date: ${error.message}. Trying again.`;
    return;
  }
  const next = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const newer = next.getElementById(part.id);
    const used = part.contains(document.activeElement) || getSelection().containsNode(part, true) && !getSelection().isCollapsed;
    if (newer && !used && newer.innerHTML !== part.innerHTML) part.replaceChildren(...newer.childNodes);
  }
}
setInterval(follow, FOLLOW_SECONDS * 1000);

/** An element with attributes and children; text stays text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function shown(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value !== "number") return String(value);
  return Math.abs(value) >= 1000 ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : String(Number(value.toPrecision(3)));
}

/** A field as JSON text, which keeps whole numbers of 64 bits that JavaScript's numbers would round. */
function json(field) {
  const text = field.value;
  switch (field.dataset.type) {
    case "integer": return BigInt(text).toString();
    case "number": return String(Number(text));
    case "boolean": return text;
    case "timestamp": return JSON.stringify(`${text.length === 16 ? `${text}:00` : text}Z`);
    default: return JSON.stringify(text);
  }
}

function body(form) {
  const fields = [...form.querySelectorAll("[data-type]")].filter((field) => field.value !== "");
  return `{${fields.map((field) => `${JSON.stringify(field.name)}: ${json(field)}`).join(", ")}}`;
}

/** Ask for a prediction; a version that cannot explain itself is asked again without. */
async function ask(form, explain) {
  const headers = { "Content-Type": "application/json" };
  const key = document.getElementById("api-key");
  if (key && key.value) headers.Authorization = `Bearer ${key.value}`;
  const level = document.getElementById("interval");
  const wanted = [...(explain ? ["explain=true", "features=true"] : []), ...(level && level.value ? [`interval=${level.value}`] : [])];
  const query = wanted.length ? `?${wanted.join("&")}` : "";
  const started = performance.now();
  const response = await fetch(form.getAttribute("action") + query, {
    method: "POST", headers, body: body(form),
  });
  const answer = await response.json();
  if (explain && answer.error && answer.error.code === "not_explainable") {
    return { ...(await ask(form, false)), note: answer.error.message };
  }
  return { answer, milliseconds: performance.now() - started };
}

function facts(pairs) {
  return make("dl", { class: "facts" }, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function scale(share, mark) {
  const filled = make("i");
  filled.style.width = `${100 * share}%`;
  const bar = make("div", { class: "scale", "aria-hidden": "true" }, filled);
  if (mark !== undefined && mark !== null) {
    const line = make("b");
    line.style.left = `${100 * mark}%`;
    bar.append(line);
  }
  return bar;
}

function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

function said(prediction, target) {
  const value = prediction.prediction;
  const head = make("div", { class: "said" });
  if (typeof value === "boolean") {
    head.append(make("strong", {}, `${target.name}: ${value ? "yes" : "no"}`), `probability ${percent(prediction.probability)}, yes from ${percent(target.threshold ?? 0.5)}`);
    return [head, scale(prediction.probability, target.threshold ?? 0.5)];
  }
  if (typeof value === "number") {
    head.append(make("strong", {}, `${shown(value)}${target.unit ? ` ${target.unit}` : ""}`), target.name);
    return [head];
  }
  head.append(make("strong", {}, `${target.name}: ${value}`), `probability ${percent(prediction.probability)}`);
  const classes = Object.entries(prediction.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
  return [head, ...classes.flatMap(([name, share]) => [make("div", { class: "note" }, `${name} ${percent(share)}`), scale(share)])];
}

/** One feature's push: its name and value, a bar from the middle, and the number. */
function force(name, value, about, push, widest) {
  const bar = make("i");
  bar.style.width = `${widest ? (50 * Math.abs(push)) / widest : 0}%`;
  const unit = about && about.unit && value !== undefined && value !== null ? ` ${about.unit}` : "";
  const label = make("div", { class: "name", ...(about && about.description ? { title: about.description } : {}) }, name);
  if (value !== undefined) label.append(make("span", {}, ` = ${shown(value)}${unit}`));
  return make("div", { class: "force" }, label,
    make("div", { class: `push ${push >= 0 ? "up" : "down"}`, "aria-hidden": "true" }, bar),
    make("div", { class: "by" }, `${push >= 0 ? "+" : "−"}${shown(Math.abs(push))}`));
}

function explained(prediction, names) {
  const { base, contributions, of, raw_score: raw, method } = prediction.explanation;
  const forces = Object.entries(contributions).filter(([, push]) => push !== null);
  const widest = Math.max(...forces.map(([, push]) => Math.abs(push)));
  const features = prediction.features ?? {};
  const row = ([name, push]) => force(name, features[name], names[name], push, widest);
  const rest = forces.slice(SHOWN_FORCES);
  const parts = [
    make("h3", {}, "What each feature added"),
    make("p", { class: "note" }, `In ${of}: ${shown(base)} on average, ${shown(raw)} here (${method}).`),
    make("div", { id: "forces" }, ...forces.slice(0, SHOWN_FORCES).map(row)),
  ];
  if (rest.length) {
    const sum = rest.reduce((total, [, push]) => total + push, 0);
    parts.push(make("details", {}, make("summary", {}, `${rest.length} more features, together ${sum >= 0 ? "+" : "−"}${shown(Math.abs(sum))}`), ...rest.map(row)));
  }
  return parts;
}

function failed(form, error) {
  for (const problem of error.problems ?? []) {
    const input = problem.field && form.elements.namedItem(problem.field);
    if (!input) continue;
    input.closest(".field").classList.add("wrong");
    input.closest(".field").append(make("p", { class: "problem" }, problem.message));
  }
  return [make("p", { class: "alert" }, error.message), facts([["code", error.code], ["request", make("code", {}, error.request_id)]])];
}

/** The interval or set of a level in words. */
function uncertain(prediction, interval, target) {
  const share = percent(interval.level);
  const basis = interval.adapted ? `adapted to labels until ${interval.last.slice(0, 10)}` : "as of the holdout";
  if (prediction.interval) {
    const { lower, upper } = prediction.interval;
    return `${share} of cases: ${shown(lower)} to ${shown(upper)}${target.unit ? ` ${target.unit}` : ""} (${basis})`;
  }
  return `${share} of cases: one of ${prediction.prediction_set.map(String).join(", ")} (${basis})`;
}

function answered(form, { answer, milliseconds, note }) {
  if (answer.error) return failed(form, answer.error);
  const prediction = answer.predictions[0];
  const target = JSON.parse(form.dataset.target) ?? {};
  const parts = said(prediction, target);
  if (answer.interval) parts.push(make("p", { class: "note", id: "interval-answer" }, uncertain(prediction, answer.interval, target)));
  if (answer.degraded) parts.push(make("p", { class: "alert" }, `Nulls stand for what failed: ${answer.degraded.join(", ")}.`));
  if (answer.masked) parts.push(make("p", { class: "alert warn" }, `Masked for you: ${answer.masked.join(", ")}.`));
  for (const flag of answer.flags ?? []) parts.push(make("p", { class: "alert warn" }, `${flag.field}: ${flag.message}`));
  parts.push(facts([
    ["version", `${answer.model} ${answer.version}`],
    ["request", make("code", {}, answer.request_id)],
    ["round trip", `${shown(milliseconds)} ms from this page`],
  ]));
  if (note) parts.push(make("p", { class: "note" }, note));
  if (prediction.explanation) parts.push(...explained(prediction, JSON.parse(form.dataset.names)));
  return parts;
}

const form = document.getElementById("predict");
if (form) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const place = document.getElementById("answer");
    const button = form.querySelector("button");
    for (const problem of form.querySelectorAll(".problem")) problem.remove();
    for (const field of form.querySelectorAll(".wrong")) field.classList.remove("wrong");
    button.disabled = true;
    place.setAttribute("aria-busy", "true");
    let parts;
    try {
      parts = answered(form, await ask(form, document.getElementById("explain").checked));
    } catch (error) {
      parts = [make("p", { class: "alert" }, `The server could not be asked: ${error.message}`)];
    }
    place.replaceChildren(make("h2", {}, "Answer"), ...parts);
    place.setAttribute("aria-busy", "false");
    button.disabled = false;
  });
}

/** One row of features: a table of names and values for each view, under what is said of its key. */
function lookedUp(answer, milliseconds) {
  const [row] = answer.rows;
  const own = (view) => Object.keys(row.features).filter((name) => answer.kind === "view" || name.startsWith(`${view}__`));
  const parts = Object.entries(row.views).flatMap(([view, known]) => {
    const good = known.status === "present";
    const age = known.event_time === undefined ? "" : ` as of ${known.event_time.replace("T", " ").slice(0, 19)} UTC, ${age_of(known.age_seconds)} old`;
    const badge = make("span", { class: `badge ${good ? "" : "warn"}` }, known.status.replace("_", " "));
    return [make("h3", {}, view, " ", badge), make("p", { class: "note" }, `${age.trim() || "Nothing is known of this key."}`),
      facts(own(view).map((name) => [name.replace(`${view}__`, ""), row.features[name] === null ? "null" : shown(row.features[name])]))];
  });
  const derived = Object.keys(row.features).filter((name) => answer.kind === "service" && !Object.keys(row.views).some((view) => name.startsWith(`${view}__`)));
  if (derived.length) parts.push(make("h3", {}, "Computed from the request"), facts(derived.map((name) => [name, shown(row.features[name])])));
  if (answer.masked) parts.push(make("p", { class: "alert warn" }, `Masked for you: ${answer.masked.join(", ")}.`));
  parts.push(facts([
    ["definitions", Object.values(answer.views).map((view) => view.definition.slice(0, 12)).join(", ")],
    ["request", make("code", {}, answer.request_id)],
    ["round trip", `${shown(milliseconds)} ms from this page`],
  ]));
  return parts;
}

function age_of(seconds) {
  for (const [size, unit] of [[86400, "days"], [3600, "hours"], [60, "minutes"]]) {
    if (Math.abs(seconds) >= 2 * size) return `${shown(Math.round(seconds / size))} ${unit}`;
  }
  return `${shown(Math.round(seconds))} seconds`;
}

const lookup = document.getElementById("lookup");
if (lookup) {
  lookup.addEventListener("submit", async (event) => {
    event.preventDefault();
    const place = document.getElementById("answer");
    const button = lookup.querySelector("button");
    for (const problem of lookup.querySelectorAll(".problem")) problem.remove();
    for (const field of lookup.querySelectorAll(".wrong")) field.classList.remove("wrong");
    button.disabled = true;
    place.setAttribute("aria-busy", "true");
    const headers = { "Content-Type": "application/json" };
    const key = document.getElementById("api-key");
    if (key && key.value) headers.Authorization = `Bearer ${key.value}`;
    let parts;
    try {
      const started = performance.now();
      const response = await fetch(`${lookup.getAttribute("action")}?request_features=true`, { method: "POST", headers, body: body(lookup) });
      const answer = await response.json();
      parts = answer.error ? failed(lookup, answer.error) : lookedUp(answer, performance.now() - started);
    } catch (error) {
      parts = [make("p", { class: "alert" }, `The server could not be asked: ${error.message}`)];
    }
    place.replaceChildren(make("h2", {}, "Answer"), ...parts);
    place.setAttribute("aria-busy", "false");
    button.disabled = false;
  });
}

/** Answers to versions that wait: which button was pressed decides. */
for (const approval of document.querySelectorAll("form.approval")) {
  approval.addEventListener("submit", async (event) => {
    event.preventDefault();
    const place = approval.querySelector(".answer");
    const buttons = approval.querySelectorAll("button");
    for (const button of buttons) button.disabled = true;
    const decision = event.submitter.value;
    try {
      const response = await fetch(approval.dataset.url, {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${approval.elements.key.value}` },
        body: JSON.stringify({ decision, comment: approval.elements.comment.value }),
      });
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.error ? answer.error.message : `the server answers ${response.status}`);
      const served = answer.not_released ? `Approved, and not released: ${answer.not_released}` : `Approved; it serves as revision ${answer.revision}.`;
      place.textContent = decision === "approve" ? served : "Rejected.";
    } catch (error) {
      place.textContent = `Nothing was decided: ${error.message}`;
      for (const button of buttons) button.disabled = false;
    }
  });
}

/** What somebody says of a model or a version: only what was filled in or changed is sent. */
for (const notes of document.querySelectorAll("form.notes")) {
  notes.addEventListener("submit", async (event) => {
    event.preventDefault();
    const place = notes.querySelector(".answer");
    const button = notes.querySelector("button");
    const { comment, answers, tag, description, stage, reason, key } = notes.elements;
    const said = {};
    if (comment.value.trim()) said.comment = comment.value;
    if (comment.value.trim() && answers.value) said.answers = Number(answers.value);
    if (description.value !== description.dataset.before) said.description = description.value;
    if (stage && stage.value) Object.assign(said, { stage: stage.value, reason: reason.value });
    if (tag.value.trim()) {
      const [name, ...value] = tag.value.split("=");
      if (!value.length) {
        place.textContent = "Nothing was saved: a tag is name=value.";
        return;
      }
      said.tags = { [name.trim()]: value.join("=").trim() || null };
    }
    if (!Object.keys(said).length) {
      place.textContent = "Nothing was saved: nothing was filled in or changed.";
      return;
    }
    button.disabled = true;
    try {
      const response = await fetch(notes.dataset.url, {
        method: "PATCH",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${key.value}` },
        body: JSON.stringify(said),
      });
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.error ? answer.error.message : `the server answers ${response.status}`);
      location.reload();
    } catch (error) {
      place.textContent = `Nothing was saved: ${error.message}`;
      button.disabled = false;
    }
  });
}
