// The page: which view is open, the list of runs, the key, and what is told when something is wrong.

import { call, key } from "./api.js";
import { CohortsView } from "./cohorts.js";
import { CompareView } from "./compare.js";
import { h } from "./dom.js";
import { PlaygroundView } from "./playground.js";
import { RunView } from "./run.js";

const VIEWS = { run: "Run", cohorts: "Cohorts", playground: "Playground", compare: "Compare" };
const OF_A_RUN = new Set(["run", "cohorts"]);
const BEHIND_A_KEY = new Set(["cohorts", "playground"]);
const LOOK_EVERY_MS = 1000;

const $ = (id) => document.getElementById(id);
const main = $("main");
let about;
let list = null;
let open = null;

/** What the address says: `#/view/run`. */
function place() {
  const [, name, run] = location.hash.split("/");
  return { name: VIEWS[name] ? name : "run", run: run ? decoded(run) : null };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null; // not from here
  }
}

/** The run to show: the one that the address names, else the one that is open, else the one that began last. */
function chosen() {
  const runs = list?.runs.map(({ info }) => info.run) ?? [];
  return place().run ?? (runs.includes(open?.run) ? open.run : (runs[0] ?? null));
}

function told(error) {
  $("notice").hidden = !error;
  $("notice").textContent = error?.message ?? "";
}

/** Show the view that the address names; a view that is open already stays as it is. */
async function show() {
  const { name } = place();
  const run = OF_A_RUN.has(name) ? chosen() : null;
  for (const link of $("views").children) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("pick").hidden = !OF_A_RUN.has(name) || !list?.runs.length;
  if (open?.name === name && open.run === run) return;
  document.title = `${VIEWS[name]} – Preceptor`;
  open = { name, run, view: made(name, run) };
  main.replaceChildren(open.view.element);
  await refresh();
}

function made(name, run) {
  if (BEHIND_A_KEY.has(name) && about.keys && !key.get()) return { element: locked(name) };
  if (name === "playground") return new PlaygroundView(about);
  if (name === "compare") return new CompareView();
  if (run === null) return { element: list ? nothing() : h("div", {}) };
  return name === "run" ? new RunView(run) : new CohortsView(run);
}

function nothing() {
  return h(
    "section",
    { class: "card nothing" },
    h("h1", {}, "No run yet"),
    h(
      "p",
      {},
      "Start one with ",
      h("code", {}, "preceptor train configs/sip.yaml"),
      "; it appears here by itself. It is read from the Redis that trainer and judges share, so a run that asks no judge (objective nll) is not shown: its figures are in its folder, in metrics.jsonl.",
    ),
    h("p", {}, "Meanwhile: ", h("a", { href: "#/playground" }, "try the judge"), "."),
  );
}

function locked(name) {
  return h(
    "section",
    { class: "card nothing" },
    h("h1", {}, VIEWS[name]),
    h(
      "p",
      {},
      name === "cohorts"
        ? "Cohorts hold texts, and texts need an API key here."
        : "Judging and rewriting need an API key here.",
    ),
    h("p", { class: "buttons" }, h("button", { type: "button", class: "main", onclick: askForKey }, "Give a key")),
  );
}

/** What the open view needs from the service. */
async function refresh() {
  const { view } = open;
  if (open.busy) return;
  const own = open;
  own.busy = true;
  try {
    if (view instanceof RunView && list) await view.update(list);
    if (view instanceof CohortsView && !view.loaded) {
      view.loaded = true;
      await view.load();
    }
    told(null);
  } catch (error) {
    view.loaded = false;
    told(error);
  } finally {
    own.busy = false;
  }
}

async function look() {
  if (document.hidden || !OF_A_RUN.has(place().name)) return;
  try {
    list = await call("/v1/runs");
    list.runs.sort((one, other) => other.info.started_at - one.info.started_at);
  } catch (error) {
    told(error);
    return;
  }
  showRuns();
  await show();
  await refresh();
}

/** The runs to choose from; left alone while they are the same, so that an open list does not close. */
function showRuns() {
  const names = list.runs.map(({ info }) => [info.run, `${info.name} · ${info.run.slice(-8)} · ${info.state}`]);
  const mark = JSON.stringify(names);
  if ($("runs").dataset.mark !== mark) {
    $("runs").dataset.mark = mark;
    $("runs").replaceChildren(...names.map(([value, label]) => h("option", { value }, label)));
  }
  $("runs").value = chosen() ?? "";
}

function askForKey() {
  $("ask-key").value = "";
  $("ask").returnValue = "cancel"; // what Escape leaves as it is
  $("ask").showModal();
}

function onKeyGiven() {
  const answer = $("ask").returnValue;
  if (answer === "use") key.set($("ask-key").value.trim());
  if (answer === "forget") key.set("");
  $("ask-key").value = "";
  showKey();
  if (answer !== "use") return;
  if (BEHIND_A_KEY.has(open.name)) open = open.view instanceof PlaygroundView ? open : null;
  document.dispatchEvent(new CustomEvent("key-given"));
  show();
}

function showKey() {
  $("key").hidden = !about.keys;
  $("key").textContent = key.get() ? "API key: set" : "API key";
}

async function start() {
  $("views").append(
    ...Object.entries(VIEWS).map(([name, label]) => h("a", { href: `#/${name}`, "data-view": name }, label)),
  );
  about = await call("/dashboard/about.json");
  showKey();
  $("key").addEventListener("click", askForKey);
  $("ask").addEventListener("close", onKeyGiven);
  $("runs").addEventListener("change", (event) => {
    location.hash = `#/${place().name}/${encodeURIComponent(event.target.value)}`;
  });
  document.addEventListener("visibilitychange", look);
  addEventListener("hashchange", show);
  await look();
  if (!open) await show();
  for (;;) {
    await new Promise((done) => setTimeout(done, LOOK_EVERY_MS));
    await look();
  }
}

start().catch(told);
