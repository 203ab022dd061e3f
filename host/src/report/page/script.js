// Draws the page from the data in it. Texts are set as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const marks = { passed: "✓", flaky: "✓", failed: "✗", skipped: "–" };
const shown = new Set(Object.keys(marks));

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function time(seconds) {
  if (seconds < 0.001) return Math.round(seconds * 1e6) + " µs";
  return seconds < 1 ? (seconds * 1e3).toFixed(1) + " ms" : seconds.toFixed(2) + " s";
}

const summary = data.summary;
const figures = document.getElementById("figures");
["passed", "failed", "skipped"].forEach((name, index) => {
  if (index) figures.append(", ");
  figures.append(make("span", summary[name] ? { class: name } : {}, summary[name] + " " + name));
});
document.title = figures.textContent;
document.getElementById("about").textContent = [
  summary.files + (summary.files === 1 ? " file" : " files") + " in " + time(summary.duration_s),
  summary.flaky && summary.flaky + " flaky", summary.seed !== null && "shuffled with --seed " + summary.seed,
  summary.ended_early && "ended early: " + summary.ended_early].filter(Boolean).join(" · ");

const kinds = ["test", "boot", "setup", "snapshot", "fork", "restore"];
const end = Math.max(summary.duration_s, ...data.spans.map(s => s.started_s + s.duration_s), 1e-6);
for (const worker of [...new Set(data.spans.map(s => s.worker))].sort((a, b) => a - b)) {
  const track = make("div", { class: "track" });
  const own = data.spans.filter(s => s.worker === worker);
  own.sort((a, b) => (a.kind !== "test") - (b.kind !== "test"));
  for (const span of own) {
    const bar = make("i", { class: span.kind === "test" ? "" : "inner",
      title: `${span.kind}: ${span.name}\n${time(span.duration_s)} at ${time(span.started_s)}\n${span.file}` });
    bar.style.left = 100 * span.started_s / end + "%";
    bar.style.width = 100 * span.duration_s / end + "%";
    bar.style.background = `var(--${span.kind})`;
    const at = data.tests.find(t => t.worker === worker && t.started_s <= span.started_s + 1e-9
      && span.started_s <= t.started_s + t.duration_s);
    if (at) bar.onclick = () => { at.element.open = true; at.element.scrollIntoView({ behavior: "smooth", block: "center" }); };
    track.append(bar);
  }
  document.getElementById("timeline").append(make("div", { class: "row" }, make("b", {}, "worker " + (worker + 1)), track));
}
for (const kind of kinds) {
  const key = make("i");
  key.style.background = `var(--${kind})`;
  document.getElementById("legend").append(key, kind);
}

function part(title, text) {
  return [make("h3", {}, title), make("pre", {}, text)];
}

function difference(lines) {
  const pre = make("pre");
  for (const line of lines) {
    if (typeof line === "number") pre.append(`  … ${line} more lines are the same\n`);
    else if (line[0] === "-") pre.append(make("del", {}, "- " + line[1]));
    else if (line[0] === "+") pre.append(make("ins", {}, "+ " + line[1]));
    else pre.append("  " + line[1] + "\n");
  }
  return [make("h3", {}, "- expected, + observed"), pre];
}

function subtests(list) {
  return make("ul", {}, ...list.map(s => make("li", {}, make("span", { class: s.outcome }, marks[s.outcome] + " "),
    s.name + " ", make("small", {}, time(s.duration_s)), ...(s.subtests.length ? [subtests(s.subtests)] : []))));
}

function details(test) {
  const body = make("div", { class: "body" });
  if (test.subtests.length) body.append(subtests(test.subtests));
  for (const failure of test.failures) {
    const where = test.attempts > 1 ? `attempt ${failure.attempt} of ${test.attempts}, ${failure.phase}` : failure.phase;
    body.append(...part(where, failure.text));
    if (failure.difference) body.append(...difference(failure.difference));
    for (const console of failure.consoles) body.append(...part("console of " + console.machine, console.text));
  }
  if (test.output) body.append(...part("printed", test.output));
  if (test.artifacts) body.append(...part("kept in", test.artifacts));
  body.append(make("h3", {}, `${test.file}:${test.line}`));
  return body;
}

const files = new Map();
for (const test of data.tests) {
  if (!files.has(test.file)) files.set(test.file, make("article", {}, make("h2", {}, test.file)));
  test.element = make("details", {}, make("summary", {},
    make("span", { class: "mark " + test.outcome }, marks[test.outcome]),
    make("span", { class: "name" }, test.path.join(" › ") || "the file itself"),
    make("small", {}, test.outcome === "skipped" ? test.reason : test.outcome === "flaky" ? "flaky" : ""),
    make("time", {}, time(test.duration_s))), details(test));
  test.element.open = test.outcome === "failed";
  files.get(test.file).append(test.element);
}
document.getElementById("tests").append(...files.values());

function filter() {
  const words = document.getElementById("filter").value.toLowerCase();
  for (const article of files.values()) article.hidden = true;
  for (const test of data.tests) {
    const hit = shown.has(test.outcome) && (test.file + " " + test.name).toLowerCase().includes(words);
    test.element.hidden = !hit;
    if (hit) files.get(test.file).hidden = false;
  }
}
document.getElementById("filter").oninput = filter;
for (const outcome of Object.keys(marks)) {
  const count = data.tests.filter(t => t.outcome === outcome).length;
  if (!count) continue;
  const button = make("button", { "aria-pressed": "true", class: outcome }, `${count} ${outcome}`);
  button.onclick = () => {
    if (!shown.delete(outcome)) shown.add(outcome);
    button.setAttribute("aria-pressed", String(shown.has(outcome)));
    filter();
  };
  document.getElementById("outcomes").append(button);
}
