// Try the judge and the rewriter on texts of one's own, through the public API and with one's own key.

import { call } from "./api.js";
import { field, foreign, h, select } from "./dom.js";
import { duration, percent, short } from "./numbers.js";
import { candidates, cost, matrices, provenance } from "./verdicts.js";

export class PlaygroundView {
  constructor(about) {
    this.element = h("div", {}, h("h1", {}, "Playground"));
    for (const [service, make] of [
      ["judge", judging],
      ["rewrite", rewriting],
    ]) {
      const url = service === about.service ? "/" : about[`${service}_url`];
      this.element.append(url === "/" ? make() : elsewhere(service, url));
    }
  }
}

function elsewhere(service, url) {
  const page = url && `${url.replace(/\/$/, "")}/#/playground`;
  return h(
    "section",
    { class: "card" },
    h("h2", {}, service === "judge" ? "Judge" : "Rewrite"),
    page
      ? h("p", {}, "The ", service, " service has a page of its own: ", h("a", { href: page, rel: "noreferrer" }, page))
      : h(
          "p",
          { class: "muted" },
          `The ${service} service is a process of its own, and this one was not told where (dashboard.${service}_url).`,
        ),
  );
}

/** A form whose button is off while it works, with a place for what comes of it. */
function worker(fields, label, work) {
  const button = h("button", { type: "submit", class: "main" }, label);
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  const result = h("div", { class: "result", "aria-live": "polite" });
  const form = h("form", { class: "playground" }, fields, h("p", { class: "buttons" }, button), trouble);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    trouble.hidden = true;
    try {
      result.replaceChildren(...(await work()).filter(Boolean));
    } catch (error) {
      result.replaceChildren();
      trouble.textContent = error.message;
      trouble.hidden = false;
    } finally {
      button.disabled = false;
    }
  });
  return [form, result];
}

const area = (rows, required = false) => h("textarea", { rows, required, spellcheck: "false" });

function judging() {
  const prefix = area(3);
  const reference = area(2);
  const texts = h("div", { class: "texts" });
  const rubrics = h("fieldset", { class: "rubrics" }, h("legend", {}, "Rubrics"));
  const votes = h("input", { type: "number", min: 1, max: 64, value: 1 });
  const temperature = h("input", { type: "number", min: 0, max: 2, step: 0.1, value: 0 });
  const add = () => {
    const letter = String.fromCharCode(97 + texts.children.length);
    texts.append(field(`Candidate ${letter}`, area(3, true)));
    more.disabled = texts.children.length >= 16;
    less.disabled = texts.children.length <= 1;
  };
  const more = h("button", { type: "button", onclick: add }, "One more");
  const less = h(
    "button",
    {
      type: "button",
      onclick: () => {
        texts.lastChild.remove();
        less.disabled = texts.children.length <= 1;
        more.disabled = false;
      },
    },
    "One less",
  );
  add();
  add();
  let axes = [];
  const load = async () => {
    axes = await offer(rubrics);
  };
  document.addEventListener("key-given", load);
  load();

  async function work() {
    const wanted = axes.filter(({ on }) => on.checked);
    const candidatesGiven = [...texts.querySelectorAll("textarea")].map((text, at) => ({
      id: String.fromCharCode(97 + at),
      text: text.value,
    }));
    const cohort = { id: "playground", prefix: prefix.value, candidates: candidatesGiven };
    if (reference.value) cohort.reference = reference.value;
    const response = await call("/v1/judge", {
      cohort,
      axes: wanted.map(({ axis }) => axis),
      rubrics: Object.fromEntries(wanted.map(({ axis, which }) => [axis, which.value])),
      sampling: { votes: votes.valueAsNumber, temperature: temperature.valueAsNumber },
      order: "both",
      detail: true,
    });
    const shown = { ...cohort, candidates: candidatesGiven.map((candidate) => ({ ...candidate, origin: "rollout" })) };
    return [
      h("p", { class: "cost" }, cost(response)),
      plain(candidates(shown, response)),
      ...matrices(shown, response),
      provenance(response),
    ];
  }

  return h(
    "section",
    { class: "card wide" },
    h("h2", {}, "Judge"),
    ...worker(
      [
        field("Prefix", prefix, "what the candidates continue"),
        texts,
        h("p", { class: "buttons" }, more, less),
        field("Reference", reference, "for rubrics that compare with one"),
        rubrics,
        h("div", { class: "row" }, field("Votes", votes, "per question"), field("Temperature", temperature)),
      ],
      "Judge",
      work,
    ),
  );
}

/** What was pasted has no origin worth showing. */
function plain(element) {
  for (const origin of element.querySelectorAll(".origin")) origin.remove();
  return element;
}

/** The service's rubrics, one row an axis: `{axis, on, which}` of each; none if they cannot be had. */
async function offer(fieldset) {
  const status = h("p", { class: "muted" }, "Loading…");
  fieldset.replaceChildren(fieldset.firstChild, status);
  let listed;
  try {
    listed = (await call("/v1/rubrics")).rubrics;
  } catch (error) {
    status.textContent = error.message;
    return [];
  }
  status.remove();
  const axes = [...new Set(listed.map(({ spec }) => spec.axis))];
  return axes.map((axis) => {
    const own = listed.filter(({ spec }) => spec.axis === axis);
    const chosen = own.find((rubric) => rubric.default) ?? own[0];
    const on = h("input", { type: "checkbox", checked: chosen.spec.reference !== "required" });
    const which = select(
      { "aria-label": `Rubric for ${axis}` },
      own.map(({ name, spec }) => [
        name,
        `${name} (${spec.mode}${spec.reference === "required" ? ", needs a reference" : ""})`,
      ]),
      chosen.name,
    );
    fieldset.append(h("div", { class: "rubric" }, h("label", {}, on, ` ${axis}`), which));
    return { axis, on, which };
  });
}

function rewriting() {
  const prefix = area(3);
  const suffix = area(3, true);
  const samples = h("input", { type: "number", min: 1, max: 16, value: 1 });

  async function work() {
    const answer = await call("/v1/rewrite", {
      prefix: prefix.value,
      suffix: suffix.value,
      samples: samples.valueAsNumber,
    });
    const { usage, checks } = answer;
    const facts = [
      `${short(usage.prompt_tokens)} tokens read, ${short(usage.completion_tokens)} written`,
      checks ? `${percent(checks.kept)} of the words kept, length × ${short(checks.length_ratio)}` : null,
      answer.score === null ? null : `judged ${short(answer.score)} of ${answer.usable} usable`,
      `by ${answer.provenance.teacher}, ${answer.provenance.rubric}`,
    ];
    return [
      h(
        "p",
        { class: "line-up" },
        h("span", { class: `badge ${answer.rewrite === null ? "lost" : "chosen"}` }, answer.outcome),
        facts.filter(Boolean).join(" · "),
      ),
      answer.reason ? h("p", { class: "muted" }, answer.reason) : null,
      h(
        "div",
        { class: "sides" },
        h("div", { class: "card" }, h("h3", {}, "Suffix"), foreign(suffix.value)),
        h(
          "div",
          { class: "card" },
          h("h3", {}, "Rewrite"),
          answer.rewrite === null ? h("p", { class: "muted" }, "none") : foreign(answer.rewrite),
        ),
      ),
    ];
  }

  return h(
    "section",
    { class: "card wide" },
    h("h2", {}, "Rewrite"),
    ...worker(
      [
        field("Prefix", prefix),
        field("Suffix", suffix),
        h("div", { class: "row" }, field("Samples", samples, "the judge takes the best")),
      ],
      "Rewrite",
      work,
    ),
  );
}
