// A line chart, or shares stacked to one: SVG drawn to the width there is, with a reading at the pointer or arrow keys.

import { h, svg } from "./dom.js";
import { short } from "./numbers.js";

const HEIGHT = 190;
const MARGIN = { left: 44, right: 12, top: 10, bottom: 24 };

/** Round values between `low` and `high`, about `count` of them. */
function ticks(low, high, count, whole = false) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= raw);
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) found.push(value);
  return found;
}

export class Chart {
  /**
   * `bounds` are fixed ends of the y axis, where they are known, and `room` is the least it spans; `show` writes a
   * value; `stacked` piles shares up; `below` stands under the heading, `tools` beside it.
   */
  constructor({ title, below, bounds = [0, null], room = 1e-6, show = short, stacked = false, tools = null }) {
    this.title = title;
    this.bounds = bounds;
    this.room = room;
    this.show = show;
    this.stacked = stacked;
    this.series = [];
    this.limit = null;
    this.place = null;
    this.picture = svg("svg", { "aria-hidden": "true", height: HEIGHT });
    this.reading = h("div", { class: "reading", role: "status", hidden: true });
    this.plot = h("div", { class: "plot", role: "img", tabindex: "0" }, this.picture, this.reading);
    this.legend = h("ul", { class: "legend" });
    this.empty = h("p", { class: "empty" }, "Nothing yet.");
    this.element = h(
      "section",
      { class: "card chart" },
      h("div", { class: "head" }, h("h3", {}, title), tools),
      below ? h("p", { class: "below" }, below) : null,
      this.legend,
      this.plot,
      this.empty,
    );
    this.plot.addEventListener("pointermove", (event) => this.#read(this.#nearest(event)));
    this.plot.addEventListener("pointerleave", () => this.#read(null));
    this.plot.addEventListener("blur", () => this.#read(null));
    this.plot.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(() => this.#render()).observe(this.plot);
  }

  /** Show `series`: `{name, colour, points: [[x, y or null], ...]}` over the same x. `limit` is `{value, name}`. */
  draw(series, limit = null) {
    this.series = series.filter(({ points }) => points.some(([, y]) => y !== null));
    this.limit = limit;
    this.empty.hidden = this.series.length > 0;
    this.plot.hidden = this.legend.hidden = this.series.length === 0;
    this.#render();
  }

  #render() {
    const width = this.plot.clientWidth;
    if (!width || !this.series.length) return;
    const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
    const xs = this.series[0].points.map(([x]) => x);
    const [first, last] = [xs[0], xs.at(-1)];
    const drawn = this.stacked ? stack(this.series) : this.series;
    const values = drawn.flatMap(({ points }) => points.map(([, y]) => y)).filter((y) => y !== null);
    const [low, high] = this.#range(values);
    this.x = (x) => MARGIN.left + (last === first ? inner.width / 2 : ((x - first) / (last - first)) * inner.width);
    this.y = (y) => MARGIN.top + inner.height - ((y - low) / (high - low)) * inner.height;
    const lines = ticks(low, high, 4).map((value) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: this.y(value), y2: this.y(value) }),
      svg("text", { class: "tick", x: MARGIN.left - 7, y: this.y(value) + 4, "text-anchor": "end" }, this.show(value)),
    ]);
    const marks = ticks(first, last, Math.max(2, Math.floor(inner.width / 90)), true).map((value) =>
      svg("text", { class: "tick", x: this.x(value), y: HEIGHT - 6, "text-anchor": "middle" }, short(value)),
    );
    this.cursor = svg("line", { class: "cursor", y1: MARGIN.top, y2: MARGIN.top + inner.height, visibility: "hidden" });
    this.picture.setAttribute("width", width);
    this.picture.replaceChildren(...lines.flat(), ...marks, ...this.#limit(width), ...this.#shapes(drawn), this.cursor);
    this.#explain();
    if (this.place !== null) this.#read(Math.min(this.place, xs.length - 1));
  }

  #range(values) {
    const [low, high] = this.bounds;
    const most = Math.max(...values, this.limit?.value ?? -Infinity);
    const least = Math.min(...values);
    const bottom = low ?? least - 0.08 * (most - least || 1);
    return [bottom, high ?? Math.max(most + 0.08 * (most - bottom), bottom + this.room)];
  }

  #limit(width) {
    if (!this.limit) return [];
    const y = this.y(this.limit.value);
    return [
      svg("line", { class: "limit", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }),
      svg("text", { class: "tick", x: width - MARGIN.right, y: y - 4, "text-anchor": "end" }, this.limit.name),
    ];
  }

  #shapes(drawn) {
    if (this.stacked) {
      return drawn.map(({ colour, points, floor }) => {
        const there = points.map(([x, y], at) => [x, y, floor[at]]).filter(([, y]) => y !== null);
        const over = there.map(([x, y]) => `${this.x(x)},${this.y(y)}`);
        const under = there.map(([x, , y]) => `${this.x(x)},${this.y(y)}`).reverse();
        return svg("polygon", { class: `area ${colour}`, points: [...over, ...under].join(" ") });
      });
    }
    return drawn.flatMap(({ colour, points }) => {
      const there = points.filter(([, y]) => y !== null).map(([x, y]) => [this.x(x), this.y(y)]);
      const [x, y] = there.at(-1);
      return [
        svg("polyline", { class: `line ${colour}`, points: there.map((point) => point.join(",")).join(" ") }),
        svg("circle", { class: `dot ${colour}`, cx: x, cy: y, r: 3 }),
      ];
    });
  }

  /** The legend with the newest values, which is also what a screen reader hears. */
  #explain() {
    const newest = this.series.map(({ name, colour, points }) => {
      const value = points.findLast(([, y]) => y !== null)[1];
      return { name, colour, value: this.show(value) };
    });
    this.legend.replaceChildren(
      ...newest.map(({ name, colour, value }) =>
        h("li", {}, h("span", { class: `swatch ${colour}` }), `${name} `, h("b", {}, value)),
      ),
    );
    const values = newest.map(({ name, value }) => `${name} ${value}`).join(", ");
    this.plot.setAttribute("aria-label", `${this.title}, at step ${this.series[0].points.at(-1)[0]}: ${values}`);
  }

  #nearest(event) {
    const at = event.clientX - this.picture.getBoundingClientRect().left;
    const distances = this.series[0].points.map(([x]) => Math.abs(this.x(x) - at));
    return distances.indexOf(Math.min(...distances));
  }

  #onKey(event) {
    const last = this.series[0].points.length - 1;
    const at = this.place ?? last + 1;
    const ways = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last };
    if (event.key === "Escape") this.#read(null);
    if (!(event.key in ways)) return;
    event.preventDefault();
    this.#read(Math.min(last, Math.max(0, ways[event.key])));
  }

  /** Show the values at place `at` of the points; with null, nothing. */
  #read(at) {
    this.place = at;
    this.reading.hidden = at === null;
    this.cursor?.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at === null || !this.series[0]?.points[at]) return;
    const [x] = this.series[0].points[at];
    const across = this.x(x);
    this.cursor.setAttribute("x1", across);
    this.cursor.setAttribute("x2", across);
    this.reading.replaceChildren(
      h("b", {}, `Step ${x}`),
      ...this.series.map(({ name, colour, points }) =>
        h(
          "span",
          {},
          h("span", { class: `swatch ${colour}` }),
          `${name} ${points[at][1] === null ? "–" : this.show(points[at][1])}`,
        ),
      ),
    );
    const right = across > this.plot.clientWidth / 2;
    this.reading.style.left = right ? "auto" : `${across + 10}px`;
    this.reading.style.right = right ? `${this.plot.clientWidth - across + 10}px` : "auto";
  }
}

/** Each series on top of those before it. */
function stack(series) {
  const floor = series[0].points.map(() => 0);
  return series.map((each) => {
    const below = [...floor];
    const points = each.points.map(([x, y], at) => {
      if (y === null) return [x, null];
      floor[at] += y;
      return [x, floor[at]];
    });
    return { ...each, points, floor: below };
  });
}
