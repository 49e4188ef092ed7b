// Generations of two models side by side, from a file that never leaves the browser.

import { field, foreign, h, select } from "./dom.js";
import { several } from "./numbers.js";

const PAGE = 20;
const MOST_BYTES = 64 * 1024 * 1024;
const PREFIXES = ["prefix", "prompt"];

/** The lines of a JSONL file: `{rows, columns, bad}`. A line counts that has a prefix and another text. */
export function read(text) {
  const rows = [];
  let bad = 0;
  for (const line of text.split("\n")) {
    if (!line.trim()) continue;
    const row = parsed(line);
    if (row) rows.push(row);
    else bad += 1;
  }
  return { rows, bad, columns: [...new Set(rows.flatMap(({ texts }) => [...texts.keys()]))] };
}

function parsed(line) {
  let value;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  const fields =
    value && typeof value === "object" ? Object.entries(value).filter(([, each]) => typeof each === "string") : [];
  const prefix = fields.find(([name]) => PREFIXES.includes(name));
  const texts = new Map(fields.filter(([name]) => !PREFIXES.includes(name)));
  return prefix && texts.size ? { prefix: prefix[1], texts } : null;
}

export class CompareView {
  constructor() {
    this.rows = [];
    this.page = 0;
    this.file = h("input", { type: "file", accept: ".jsonl,.ndjson,.json" });
    this.sides = [select({}, []), select({}, [])];
    this.search = h("input", { type: "search", spellcheck: "false" });
    this.status = h(
      "p",
      { class: "muted", role: "status" },
      "One JSON object a line: a prefix, and a text for each model. `preceptor demo` writes runs/demo/samples.jsonl, `preceptor eval --samples FILE` any other. The file stays in this browser.",
    );
    this.body = h("div", {});
    this.pages = h("p", { class: "buttons", hidden: true });
    this.file.addEventListener("change", () => this.#load());
    for (const side of this.sides) side.addEventListener("change", () => this.#show());
    this.search.addEventListener("input", () => {
      this.page = 0;
      this.#show();
    });
    this.element = h(
      "div",
      {},
      h("h1", {}, "Compare"),
      h(
        "form",
        { class: "filters", onsubmit: (event) => event.preventDefault() },
        field("File", this.file, "JSONL"),
        field("Left", this.sides[0]),
        field("Right", this.sides[1]),
        field("Search", this.search),
      ),
      this.status,
      this.body,
      this.pages,
    );
  }

  async #load() {
    const [file] = this.file.files;
    if (!file) return;
    if (file.size > MOST_BYTES) {
      this.status.textContent = `${file.name} is larger than 64 MB: cut it, for example with head -n 1000.`;
      return;
    }
    const { rows, columns, bad } = read(await file.text());
    this.rows = rows;
    this.page = 0;
    this.status.textContent = `${file.name}: ${several(rows.length, "line")}${bad ? `, and ${bad} without a prefix and a text` : ""}.`;
    const first = (names, otherwise) => names.find((name) => columns.includes(name)) ?? otherwise;
    const wanted = [first(["base", "rival"], columns[0]), first(["sip", "model"], columns.at(-1))];
    this.sides.forEach((side, at) => {
      side.replaceChildren(...columns.map((name) => h("option", { value: name }, name)));
      side.value = wanted[at];
    });
    this.#show();
  }

  #show() {
    const words = this.search.value.toLowerCase();
    const names = this.sides.map(({ value }) => value);
    const found = this.rows.filter(
      ({ prefix, texts }) => !words || [prefix, ...texts.values()].some((text) => text.toLowerCase().includes(words)),
    );
    const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    this.page = Math.min(this.page, last);
    const page = found.slice(this.page * PAGE, (this.page + 1) * PAGE);
    this.body.replaceChildren(
      ...page.map(({ prefix, texts }) =>
        h(
          "article",
          { class: "pair" },
          foreign(prefix, { class: "prefix" }),
          h(
            "div",
            { class: "sides" },
            names.map((name) =>
              h(
                "div",
                { class: "card" },
                h("h2", {}, name),
                texts.has(name) ? foreign(texts.get(name)) : h("p", { class: "muted" }, "none"),
              ),
            ),
          ),
        ),
      ),
    );
    const turn = (by, label) =>
      h(
        "button",
        {
          type: "button",
          disabled: this.page + by < 0 || this.page + by > last,
          onclick: () => {
            this.page += by;
            this.#show();
          },
        },
        label,
      );
    this.pages.hidden = last === 0;
    this.pages.replaceChildren(
      turn(-1, "Before"),
      h("span", { class: "muted" }, `page ${this.page + 1} of ${last + 1}`),
      turn(1, "Next"),
    );
  }
}
