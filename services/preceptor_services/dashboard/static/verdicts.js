// A judged cohort: its candidates with their verdicts, the pairwise matrix, what it cost.

import { foreign, h } from "./dom.js";
import { duration, percent, several, short } from "./numbers.js";

const CELLS = {
  won: ["W", "won"],
  lost: ["L", "lost"],
  tie: ["=", "tie"],
  flip: ["⇄", "flipped with the order"],
  unread: ["?", "no readable answer"],
};

/** What became of each pair of an axis: `Map("a b" -> won | lost | tie | flip | unread)`, seen from a. */
export function pairs(report) {
  const heard = new Map();
  for (const { first, second, outcome } of report.comparisons) {
    const own = { first: "won", second: "lost", tie: "tie" }[outcome] ?? "unread";
    const others = { won: "lost", lost: "won" }[own] ?? own;
    for (const [pair, result] of [
      [`${first} ${second}`, own],
      [`${second} ${first}`, others],
    ]) {
      heard.set(pair, [...(heard.get(pair) ?? []), result]);
    }
  }
  return new Map([...heard].map(([pair, results]) => [pair, joined(results)]));
}

function joined(results) {
  const readable = results.filter((result) => result !== "unread");
  if (!readable.length) return "unread";
  return new Set(readable).size === 1 ? readable[0] : "flip";
}

/** `{flipped, pairs}` over all axes: how often the order decided. */
export function flips(response) {
  let [flipped, count] = [0, 0];
  for (const report of Object.values(response?.axes ?? {})) {
    for (const result of pairs(report).values()) {
      count += 0.5;
      if (result === "flip") flipped += 0.5;
    }
  }
  return { flipped, pairs: count };
}

/** The candidates, best first, each with its verdicts. */
export function candidates(cohort, response, { scores = {}, chosen = null, rejected = null } = {}) {
  const composites = new Map((response?.composites ?? []).map((one) => [one.candidate_id, one]));
  const score = ({ id }) => scores[id] ?? composites.get(id)?.score ?? meanScore(response, id);
  const sorted = [...cohort.candidates].sort((one, other) => (score(other) ?? -1) - (score(one) ?? -1));
  return h(
    "div",
    { class: "candidates" },
    sorted.map((candidate) => {
      const marks = [
        candidate.id === chosen ? h("span", { class: "badge chosen" }, "chosen") : null,
        candidate.id === rejected ? h("span", { class: "badge rejected" }, "rejected") : null,
      ];
      const composite = composites.get(candidate.id);
      const verdicts = (response?.verdicts ?? []).filter(({ candidate_id }) => candidate_id === candidate.id);
      return h(
        "article",
        {
          class: `card candidate ${candidate.id === chosen ? "is-chosen" : ""} ${candidate.id === rejected ? "is-rejected" : ""}`,
        },
        h(
          "div",
          { class: "line-up" },
          h("h3", {}, candidate.id),
          h("span", { class: `origin o-${candidate.origin}` }, candidate.origin),
          marks,
          h("b", { class: "score" }, short(score(candidate))),
        ),
        foreign(candidate.text),
        composite?.failed_gates.length ? h("p", { class: "gate" }, "Gate: ", composite.failed_gates.join(", ")) : null,
        composite?.reason ? h("p", { class: "muted" }, `No composite: ${composite.reason}`) : null,
        h("ul", { class: "verdicts" }, verdicts.map(verdict)),
      );
    }),
  );
}

function meanScore(response, id) {
  const scores = (response?.verdicts ?? [])
    .filter((one) => one.candidate_id === id && one.score !== null)
    .map((one) => one.score);
  return scores.length ? scores.reduce((total, one) => total + one, 0) / scores.length : null;
}

function verdict({ axis, status, score, votes, reason, rationale }) {
  const counts = Object.entries(votes.counts)
    .filter(([, count]) => count)
    .map(([label, count]) => `${label} ${count}`);
  if (votes.unreadable) counts.push(`unreadable ${votes.unreadable}`);
  if (votes.failed) counts.push(`failed ${votes.failed}`);
  const bar =
    status === "ok" ? h("meter", { min: 0, max: 1, value: score, "aria-label": `${axis} ${short(score)}` }) : null;
  return h(
    "li",
    {},
    h("span", { class: "axis" }, axis),
    bar ?? h("span", { class: "badge lost" }, status),
    h("b", {}, status === "ok" ? short(score) : "–"),
    h("span", { class: "muted votes" }, counts.join(" · ")),
    reason ? h("p", { class: "why" }, reason) : null,
    rationale ? foreign(rationale, { class: "why said" }) : null,
  );
}

/** For each axis that compares pairs: who beat whom, in both orders. */
export function matrices(cohort, response) {
  return Object.entries(response?.axes ?? {})
    .filter(([, report]) => report.comparisons.length)
    .map(([axis, report]) =>
      matrix(
        axis,
        report,
        cohort.candidates.map(({ id }) => id),
      ),
    );
}

function matrix(axis, report, ids) {
  const results = pairs(report);
  const cell = (one, other) => {
    if (one === other) return h("td", { class: "self" });
    const [mark, words] = CELLS[results.get(`${one} ${other}`)] ?? ["", "not compared"];
    const name = `${one} against ${other}: ${words}`;
    return h(
      "td",
      { class: `cell ${results.get(`${one} ${other}`) ?? ""}`, title: name },
      h("span", { "aria-hidden": "true" }, mark),
      h("span", { class: "unseen" }, words),
    );
  };
  const said = report.comparisons.filter(({ rationale }) => rationale);
  return h(
    "section",
    { class: "card" },
    h("h3", {}, `Pairs: ${axis}`),
    h(
      "p",
      { class: "below" },
      `Each row’s candidate against each column’s. W won, L lost, = tie, ⇄ the order decided, ? no readable answer.`,
    ),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": `Pairs of ${axis}` },
      h(
        "table",
        { class: "matrix" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("td", {}),
            ids.map((id) => h("th", { scope: "col" }, id)),
          ),
        ),
        h(
          "tbody",
          {},
          ids.map((one) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, one),
              ids.map((other) => cell(one, other)),
            ),
          ),
        ),
      ),
    ),
    said.length
      ? h(
          "details",
          {},
          h("summary", {}, `The judge’s reasons (${said.length})`),
          h(
            "ul",
            { class: "reasons" },
            said.map(({ first, second, outcome, rationale }) =>
              h(
                "li",
                {},
                h("b", {}, `${first} then ${second}: ${{ first, second }[outcome] ?? outcome}`),
                foreign(rationale),
              ),
            ),
          ),
        )
      : null,
  );
}

/** What judged, and what it cost. */
export function provenance(response) {
  if (!response) return null;
  const rows = Object.entries(response.axes).map(([axis, { provenance: by, usage, position_consistency: agree }]) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, axis),
      h("td", {}, by.rubric, " ", h("span", { class: "muted" }, by.rubric_hash.slice(0, 8))),
      h("td", {}, [by.schedule, by.order && `order ${by.order}`].filter(Boolean).join(", ") || "pointwise"),
      h("td", { class: "number" }, agree === null ? "–" : percent(agree)),
      h("td", { class: "number" }, short(usage.calls), usage.cached ? ` (+${usage.cached} cached)` : ""),
      h("td", { class: "number" }, short(usage.prompt_tokens + usage.completion_tokens)),
    ),
  );
  const teachers = new Set(Object.values(response.axes).map(({ provenance: by }) => by.teacher));
  return h(
    "section",
    { class: "card" },
    h("h3", {}, "Judged by ", [...teachers].join(", ") || "nobody"),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["Axis", "Rubric", "Schedule", "Orders agree", "Questions", "Tokens"].map((name, at) =>
              h("th", { scope: "col", class: at > 2 ? "number" : "" }, name),
            ),
          ),
        ),
        h("tbody", {}, rows),
      ),
    ),
    h("p", { class: "below" }, `Took ${duration(response.elapsed_s)}.`),
  );
}

/** In one line: questions, tokens, flips. */
export function cost(response) {
  const usages = Object.values(response.axes).map(({ usage }) => usage);
  const total = (name) => usages.reduce((sum, usage) => sum + usage[name], 0);
  const { flipped, pairs: count } = flips(response);
  return [
    several(total("calls"), "question"),
    total("cached") ? `${total("cached")} from the cache` : null,
    `${short(total("prompt_tokens"))} tokens read, ${short(total("completion_tokens"))} written`,
    count ? `${flipped} of ${several(count, "pair")} flipped with the order` : null,
    duration(response.elapsed_s),
  ]
    .filter(Boolean)
    .join(" · ");
}
