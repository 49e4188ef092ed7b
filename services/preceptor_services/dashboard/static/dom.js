// Elements without markup. Text only ever becomes text: nothing here, or anywhere on the page, parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: `h("p", { class: "note" }, "text", h("b", {}, "bold"))`. */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** A `select` of `[value, label]` pairs. */
export function select(properties, options, chosen) {
  const element = h(
    "select",
    properties,
    options.map(([value, label]) => h("option", { value }, label)),
  );
  if (chosen !== undefined) element.value = chosen;
  return element;
}

/** Text that a model or a stranger wrote: kept as it is, and kept apart from what stands around it. */
export function foreign(text, properties = {}) {
  return h("div", { ...properties, class: `foreign ${properties.class ?? ""}`.trim(), dir: "auto" }, text);
}

let ids = 0;

/** An id that nothing else on the page has. */
export function freshId(stem) {
  ids += 1;
  return `${stem}-${ids}`;
}

/** A form field with its label, and perhaps a hint. */
export function field(label, control, hint) {
  control.id ||= freshId("field");
  return h(
    "div",
    { class: "field" },
    h("label", { for: control.id }, label, hint ? h("span", { class: "hint" }, ` ${hint}`) : null),
    control,
  );
}
