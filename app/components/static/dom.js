/**
 * Building elements. Text from a visitor reaches the page only through `textContent`, which this module uses for
 * every string; nothing here, or anywhere else in the viewer, parses HTML.
 */

/**
 * @param {string} tag Tag name, with an optional class: "div.panel".
 * @param {Record<string, unknown>} [properties] Attributes; functions become listeners ("onclick"), `text` the text.
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) set(element, key, value);
  for (const child of children) if (child) element.append(child);
  return element;
}

/** Puts one property on an element: a listener, text, or an attribute. */
function set(element, key, value) {
  if (value === null || value === undefined || value === false) return;
  if (key === "text") element.textContent = String(value);
  else if (typeof value === "function") element.addEventListener(key.slice(2), value);
  else element.setAttribute(key, value === true ? "" : String(value));
}

/**
 * A labelled drop-down.
 * @param {{label: string, options: [string, string][], value: string, onchange: (value: string) => void}} spec
 */
export function select({ label, options, value, onchange, hideLabel = false, title = null }) {
  const field = h("select", { "aria-label": label, title, onchange: () => onchange(field.value) });
  field.append(...options.map(([key, text]) => h("option", { value: key, text })));
  field.value = value;
  const box = h("label.as-field", {}, hideLabel ? null : h("span", { text: label }), field);
  return { element: box, field, set: (next) => (field.value = next) };
}

/**
 * A row of buttons of which one is pressed.
 * @param {{label: string, options: [string, string, string?][], value: string, onchange: (value: string) => void}} spec
 */
export function segmented({ label, options, value, onchange }) {
  const buttons = new Map();
  const element = h("div.as-segments", { role: "group", "aria-label": label });
  for (const [key, text, title] of options) {
    const button = h("button", { type: "button", text, title, onclick: () => onchange(key) });
    buttons.set(key, button);
    element.append(button);
  }
  const press = (chosen) => {
    for (const [key, button] of buttons) button.setAttribute("aria-pressed", String(key === chosen));
  };
  press(value);
  return { element, buttons, set: press };
}

/** A labelled check box. */
export function checkbox({ label, value, onchange, title = null }) {
  const field = h("input", { type: "checkbox", onchange: () => onchange(field.checked) });
  field.checked = value;
  return {
    element: h("label.as-check", { title }, field, h("span", { text: label })),
    field,
    set: (v) => (field.checked = v),
  };
}

/** A text button; `title` explains it and becomes its accessible description. */
export function button(text, onclick, { title = null, className = "" } = {}) {
  const element = h("button.as-button", { type: "button", text, title, onclick });
  if (className) element.classList.add(className);
  return element;
}

/**
 * Calls `action` once things have been quiet for `delay` milliseconds.
 * @returns {((...args: unknown[]) => void) & {cancel: () => void}}
 */
export function debounce(action, delay) {
  let timer = 0;
  const run = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...args), delay);
  };
  run.cancel = () => clearTimeout(timer);
  return run;
}

/**
 * Calls `action` at once when things were quiet, and otherwise once they have been quiet for `delay` milliseconds.
 * @returns {(() => void) & {cancel: () => void}}
 */
export function promptly(action, delay) {
  const later = debounce(action, delay);
  let last = -Infinity;
  const run = () => {
    const quiet = performance.now() - last > delay;
    last = performance.now();
    if (!quiet) return later();
    later.cancel();
    return action();
  };
  run.cancel = later.cancel;
  return run;
}

/** The CSS size of an element's content box, at least 1 × 1. */
export function sizeOf(element) {
  return [Math.max(1, element.clientWidth), Math.max(1, element.clientHeight)];
}

/**
 * A canvas context scaled so that one unit is one CSS pixel, sharp on any screen.
 * @param {HTMLCanvasElement} canvas
 */
export function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
