// The live view of one run: how it stands, what holds it up, and its figures over the steps.

import { call } from "./api.js";
import { Chart } from "./chart.js";
import { h, select } from "./dom.js";
import { append, axesOf, grouped, means, originShares, perSecond, SPENT, timing, verdictShare } from "./figures.js";
import { duration, percent, several, short } from "./numbers.js";

const RECENT = 50;
const SHOWN = 20;
const AXES = ["a1", "a2", "a3", "a4", "a5"];
const PARTS = { sampling: "a3", outside: "a1", updating: "a2", guarding: "a4", syncing: "a5", other: "none" };
const QUIET_S = 30;

export class RunView {
  constructor(run) {
    this.run = run;
    this.rows = [];
    this.next = "0-0";
    this.who = select({ "aria-label": "Reward of" }, [
      ["all", "all candidates"],
      ["rollout", "rollouts"],
      ["original", "originals"],
      ["rewrite", "rewrites"],
    ]);
    this.who.addEventListener("change", () => this.#draw());
    this.charts = {
      reward: new Chart({
        title: "Reward per axis",
        below: "Mean score of a step’s trained cohorts.",
        bounds: [0, 1],
        tools: this.who,
      }),
      origins: new Chart({
        title: "Which origin wins",
        below: "Whose candidate was chosen, as shares of a step’s cohorts.",
        bounds: [0, 1],
        stacked: true,
        show: percent,
      }),
      staleness: new Chart({ title: "Staleness", below: "Updates between sampling a rollout and training on it." }),
      lost: new Chart({
        title: "Abstentions",
        below: "Verdicts without a score; none of them is ever a reward.",
        room: 0.02,
        show: percent,
      }),
      speed: new Chart({ title: "Throughput", below: "Cohorts a second." }),
      loss: new Chart({ title: "Loss", below: "Of the objective.", bounds: [null, null] }),
    };
    this.head = h("div", { class: "run-head" });
    this.tiles = h("dl", { class: "tiles" });
    this.held = h("section", { class: "card held", "aria-label": "Bottleneck" });
    this.table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The last steps" });
    this.element = h(
      "div",
      {},
      this.head,
      this.tiles,
      this.held,
      h(
        "div",
        { class: "charts" },
        Object.values(this.charts).map((chart) => chart.element),
      ),
      h("details", { class: "card" }, h("summary", {}, `The last ${SHOWN} steps as a table`), this.table),
    );
  }

  /** Look for news. `list` is the answer of `/v1/runs`. */
  async update(list) {
    const on = list.runs.find(({ info }) => info.run === this.run);
    if (!on) {
      this.head.replaceChildren(h("h1", {}, this.run), h("p", {}, "This run has not been heard of for a week."));
      return;
    }
    if (!this.on && on.info.rollouts) this.who.value = "rollout";
    let fresh = !this.on;
    this.on = on;
    for (;;) {
      const page = await call(`/v1/runs/${encodeURIComponent(this.run)}/rows?after=${this.next}`);
      append(this.rows, page.rows);
      this.next = page.next;
      if (!page.rows.length) break;
      fresh = true;
    }
    this.#show(list);
    if (fresh) this.#draw();
  }

  #show(list) {
    const { info, queue } = this.on;
    const silent = list.at - info.seen_at;
    const lost = info.state === "running" && silent > QUIET_S;
    const state = lost ? "silent" : info.state;
    const words = {
      running: "running",
      silent: `no word for ${duration(silent)}`,
      finished: "finished",
      stopped: "stopped, can be resumed",
      failed: "failed",
    };
    const ago = state === "running" ? null : h("span", { class: "muted" }, `last word ${duration(silent)} ago`);
    this.head.replaceChildren(
      h(
        "div",
        { class: "line-up" },
        h("h1", {}, info.name),
        h("span", { class: `badge ${state}` }, words[state]),
        lost ? null : ago,
      ),
      h(
        "p",
        { class: "muted" },
        `${info.run} · ${info.objective} · ${several(info.cohorts_per_step, "cohort")} a step · ${several(info.rollouts, "rollout")} a prefix${info.rewrites ? " · rewrites" : ""}`,
      ),
      h("progress", { max: info.steps, value: info.step, "aria-label": "Steps done" }),
    );
    const recent = this.rows.slice(-RECENT - 1);
    const last = this.rows.at(-1);
    const [whole] = grouped(recent, 1);
    const abstained = whole ? verdictShare([whole], "abstained")[0][1] : null;
    const left = this.#left(recent, info);
    const tile = (name, value, note) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, value, note ? h("small", {}, ` ${note}`) : null));
    this.tiles.replaceChildren(
      tile("Step", short(info.step), `of ${short(info.steps)}`),
      tile(
        state === "running" && left !== null ? "Left" : "Took",
        state === "running" && left !== null ? duration(left) : duration(last?.elapsed_s),
        null,
      ),
      tile("Staleness", last ? short(last.staleness.mean) : "–", `limit ${info.staleness_limit}`),
      tile("Abstained", percent(abstained), null),
      tile("Waiting", short(queue.waiting), queue.oldest_s === null ? null : `oldest ${duration(queue.oldest_s)}`),
      tile("In flight", short(queue.in_flight), several(list.workers, "worker")),
      tile("Dead", short(queue.dead), list.queue.dead > queue.dead ? `${list.queue.dead} in all` : null),
    );
    this.#bottleneck(timing(recent, info), info, state);
  }

  #left(recent, info) {
    if (recent.length < 2 || info.step >= info.steps) return null;
    const pace = (recent.at(-1).elapsed_s - recent[0].elapsed_s) / (recent.length - 1);
    return pace * (info.steps - info.step);
  }

  #bottleneck(timed, info, state) {
    const stuck = state === "running" && info.waiting_for;
    if (!timed && !stuck) {
      this.held.replaceChildren(h("h2", {}, "Bottleneck"), h("p", { class: "empty" }, "Told once two steps are done."));
      return;
    }
    const { held, spent, seconds, steps, stages } = timed ?? {};
    const title = stuck ? `Waiting for: ${info.waiting_for}` : `Bottleneck: ${held.name}`;
    const told = stuck
      ? `The learner has had no batch since step ${info.step}.`
      : `${percent(held.share)} of the learner’s time in the last ${several(steps, "step")} went to this.`;
    this.held.replaceChildren(h("h2", {}, title), h("p", {}, told));
    if (!timed) return;
    const parts = Object.entries(spent).filter(([, length]) => length / seconds > 0.001);
    const names = { ...SPENT, ...(info.rewrites ? { outside: "waiting for verdicts or rewrites" } : {}) };
    const bar = h("div", {
      class: "bar-of-time",
      role: "img",
      "aria-label": `Where the learner’s time went: ${parts.map(([part, length]) => `${names[part]} ${percent(length / seconds)}`).join(", ")}`,
    });
    for (const [part, length] of parts) {
      const piece = h("span", { class: `piece ${PARTS[part]}`, title: names[part] });
      piece.style.flexGrow = length / seconds;
      bar.append(piece);
    }
    const legend = parts.map(([part, length]) =>
      h(
        "li",
        {},
        h("span", { class: `swatch ${PARTS[part]}` }),
        `${names[part]} `,
        h("b", {}, percent(length / seconds)),
      ),
    );
    this.held.append(bar, h("ul", { class: "legend" }, legend), this.#stages(stages, held.part));
  }

  #stages(stages, slow) {
    const head = ["Stage", "Cohorts/s", "Busy", "Alone it could"].map((name, at) =>
      h("th", { scope: "col", class: at ? "number" : "" }, name),
    );
    const rows = Object.entries(stages).map(([part, { name, rate, busy, alone, note }]) =>
      h(
        "tr",
        { class: part === slow ? "slow" : "" },
        h(
          "th",
          { scope: "row" },
          name,
          part === slow ? h("span", { class: "badge slow" }, "slowest") : null,
          note
            ? h("span", { class: "muted" }, ` ${short(note.verdicts)} verdicts/s, ${short(note.tokens)} tokens/s`)
            : null,
        ),
        h("td", { class: "number" }, short(rate)),
        h("td", { class: "number" }, percent(busy)),
        h("td", { class: "number" }, alone === null ? "–" : `${short(alone)}/s`),
      ),
    );
    return h(
      "div",
      { class: "scroll" },
      h("table", { class: "stages" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)),
    );
  }

  #draw() {
    const groups = grouped(this.rows);
    const { charts, on } = this;
    const who = this.who.value;
    const axes = axesOf(this.rows);
    charts.reward.draw(
      axes.map((axis, at) => ({
        name: axis,
        colour: AXES[at % AXES.length],
        points: means(groups, (row) => row.scores?.[axis]?.[who]),
      })),
    );
    charts.origins.draw(originShares(groups).map((series) => ({ ...series, colour: `o-${series.name}` })));
    charts.staleness.draw(
      [
        { name: "mean", colour: "a1", points: means(groups, (row) => row.staleness?.mean) },
        {
          name: "most",
          colour: "a3",
          points: groups.map(({ x, rows }) => [x, Math.max(...rows.map((row) => row.staleness?.max ?? 0))]),
        },
      ],
      { value: on.info.staleness_limit, name: "limit" },
    );
    charts.lost.draw([
      { name: "abstained", colour: "a3", points: verdictShare(groups, "abstained") },
      { name: "failed", colour: "a4", points: verdictShare(groups, "failed") },
    ]);
    charts.speed.draw([
      { name: "judged", colour: "a1", points: perSecond(groups, (row) => row.judge?.cohorts) },
      { name: "trained on", colour: "a2", points: perSecond(groups, (row) => row.cohorts) },
    ]);
    charts.loss.draw([{ name: on.info.objective, colour: "a5", points: means(groups, (row) => row.loss) }]);
    this.#lastSteps(axes);
  }

  #lastSteps(axes) {
    const head = ["Step", ...axes, "Chosen", "Staleness", "Loss", "Grad norm"];
    const rows = this.rows
      .slice(-SHOWN)
      .reverse()
      .map((row) => [
        row.step,
        ...axes.map((axis) => short(row.scores?.[axis]?.all)),
        Object.entries(row.chosen ?? {})
          .map(([origin, count]) => `${origin} ${count}`)
          .join(", ") || "–",
        `${short(row.staleness?.mean)} (most ${row.staleness?.max})`,
        short(row.loss),
        short(row.grad_norm),
      ]);
    this.table.replaceChildren(
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            head.map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map((cells) =>
            h(
              "tr",
              {},
              cells.map((cell) => h("td", {}, String(cell))),
            ),
          ),
        ),
      ),
    );
  }
}
