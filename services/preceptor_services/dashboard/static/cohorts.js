// The cohorts of one run that have ended: a list to filter and search, and one of them in full.

import { call } from "./api.js";
import { field, foreign, h, select } from "./dom.js";
import { ORIGINS } from "./figures.js";
import { several } from "./numbers.js";
import { candidates, flips, matrices, provenance } from "./verdicts.js";

export class CohortsView {
  constructor(run) {
    this.run = run;
    this.all = [];
    this.next = "0-0";
    this.search = h("input", { type: "search", placeholder: "text, reason or id", spellcheck: "false" });
    this.outcome = select({}, [
      ["", "all"],
      ...["trained", "tied", "unjudged", "dead", "unfit", "stale"].map((name) => [name, name]),
    ]);
    this.origin = select({}, [["", "any"], ...ORIGINS.map((name) => [name, name])]);
    this.trouble = select({}, [
      ["", "any"],
      ["flips", "position flips"],
      ["lost", "abstained or failed"],
      ["gate", "failed gates"],
    ]);
    this.count = h("p", { class: "muted", role: "status" });
    this.list = h("ul", { class: "cohort-list", "aria-label": "Cohorts" });
    this.detail = h("div", { class: "detail", tabindex: "-1" });
    this.fresh = h("button", { type: "button", onclick: () => this.load() }, "Look for newer ones");
    for (const control of [this.search, this.outcome, this.origin, this.trouble])
      control.addEventListener("input", () => this.#filter());
    this.list.addEventListener("keydown", (event) => this.#onKey(event));
    this.element = h(
      "div",
      {},
      h("h1", {}, "Cohorts"),
      h(
        "form",
        { class: "filters", onsubmit: (event) => event.preventDefault() },
        field("Search", this.search),
        field("Outcome", this.outcome),
        field("Chosen", this.origin),
        field("With", this.trouble),
        this.fresh,
      ),
      this.count,
      h("div", { class: "browser" }, this.list, this.detail),
    );
  }

  /** Fetch what has come since the last time. Throws `Problem`. */
  async load() {
    const known = new Set(this.all.map(mark));
    for (;;) {
      const page = await call(`/v1/runs/${encodeURIComponent(this.run)}/cohorts?after=${this.next}`);
      this.next = page.next;
      this.all.unshift(...page.cohorts.reverse().filter((ended) => !known.has(mark(ended))));
      if (!page.cohorts.length) break;
    }
    this.#filter();
    if (!this.shown && this.found.length) this.#open(this.found[0]);
  }

  #filter() {
    const words = this.search.value.toLowerCase();
    this.found = this.all.filter(
      (ended) =>
        (!this.outcome.value || ended.outcome === this.outcome.value) &&
        (!this.origin.value || originOf(ended, ended.chosen) === this.origin.value) &&
        (!this.trouble.value || hasTrouble(ended, this.trouble.value)) &&
        (!words || textOf(ended).includes(words)),
    );
    this.count.textContent = this.all.length
      ? `${this.found.length} of ${several(this.all.length, "cohort")}, newest first. The run keeps a sample of its newest.`
      : "No cohort of this run has ended yet, or it shows none (board.cohorts).";
    this.list.replaceChildren(...this.found.map((ended) => h("li", {}, this.#button(ended))));
  }

  #button(ended) {
    const chosen = originOf(ended, ended.chosen);
    return h(
      "button",
      {
        type: "button",
        class: "entry",
        "aria-current": ended === this.shown ? "true" : null,
        onclick: () => this.#open(ended, true),
      },
      h(
        "span",
        { class: "line-up" },
        h("b", {}, ended.cohort.id),
        h("span", { class: `badge ${ended.outcome === "trained" ? "" : "lost"}` }, ended.outcome),
        ended.step === null ? null : h("span", { class: "muted" }, `step ${ended.step}`),
        chosen ? h("span", { class: `origin o-${chosen}` }, chosen) : null,
      ),
      h("span", { class: "snippet", dir: "auto" }, ended.cohort.prefix.slice(-160)),
    );
  }

  #onKey(event) {
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...this.list.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    if (!way || at < 0) return;
    event.preventDefault();
    buttons[Math.min(buttons.length - 1, Math.max(0, at + way))].focus();
  }

  #open(ended, byHand = false) {
    this.shown = ended;
    for (const button of this.list.querySelectorAll("button")) button.removeAttribute("aria-current");
    this.list.children[this.found.indexOf(ended)]?.firstChild.setAttribute("aria-current", "true");
    const { cohort, response } = ended;
    const why = ended.reason && ended.reason !== "none given" ? `: ${ended.reason}` : "";
    const how = ended.outcome === "trained" ? `trained on at step ${ended.step}` : `dropped as ${ended.outcome}${why}`;
    this.detail.replaceChildren(
      h("h2", {}, `Cohort ${cohort.id}`),
      h(
        "p",
        { class: "muted" },
        `${how} · sampled at version ${ended.version}${ended.clipped ? " · shortened to be kept" : ""}`,
      ),
      h("section", { class: "card" }, h("h3", {}, "Prefix"), foreign(cohort.prefix, { class: "prefix" })),
      candidates(cohort, response, ended),
      ...matrices(cohort, response),
      response ? provenance(response) : h("p", { class: "muted" }, "No judge answered."),
    );
    if (byHand && getComputedStyle(this.list.parentElement).gridTemplateColumns.split(" ").length === 1)
      this.detail.focus();
  }
}

const mark = ({ cohort, outcome, step }) => `${cohort.id} ${outcome} ${step}`;

function originOf(ended, id) {
  return ended.cohort.candidates.find((candidate) => candidate.id === id)?.origin ?? null;
}

function hasTrouble({ response }, kind) {
  if (kind === "flips") return flips(response).flipped > 0;
  if (kind === "gate") return (response?.composites ?? []).some(({ failed_gates }) => failed_gates.length);
  return !response || response.verdicts.some(({ status }) => status !== "ok");
}

function textOf({ cohort, response, reason }) {
  const verdicts = (response?.verdicts ?? []).flatMap((one) => [one.reason, one.rationale]);
  return [cohort.id, cohort.prefix, ...cohort.candidates.map(({ text }) => text), reason, ...verdicts]
    .filter(Boolean)
    .join("\n")
    .toLowerCase();
}
