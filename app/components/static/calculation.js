/** The Calculator's panel: every step of a slider asks the route and is drawn at once; Python hears of it at rest. */

import { debounce, h } from "./dom.js";

const REST = 250; // ms without a change, after which Python hears of it

/** A value as a slider over steps, and as a number. */
class Field {
  constructor({ name, label, steps, most, value }, moved) {
    this.name = name;
    this.steps = steps;
    this.slider = h("input", { type: "range", min: 0, max: steps.length - 1, "aria-label": label });
    this.number = h("input", { type: "number", min: 1, max: most, step: 1, "aria-label": `${label}, exactly` });
    this.slider.addEventListener("input", () => {
      this.number.value = this.steps[this.slider.valueAsNumber];
      moved();
    });
    this.number.addEventListener("input", () => {
      if (!this.number.validity.valid || !this.number.value) return;
      this.#slide();
      moved();
    });
    this.element = h("div.as-calc-field", {}, h("span", { text: label }), this.slider, this.number);
    this.set(value);
  }

  get value() {
    return this.number.valueAsNumber;
  }

  set(value) {
    this.number.value = value;
    this.#slide();
  }

  #slide() {
    const distance = (step) => Math.abs(Math.log(step / this.value));
    const nearest = this.steps.reduce((best, step) => (distance(step) < distance(best) ? step : best));
    this.slider.value = this.steps.indexOf(nearest);
    this.slider.setAttribute("aria-valuetext", this.number.value);
  }
}

class Panel {
  constructor(parent, { fields }) {
    this.fields = fields.map((field) => new Field(field, () => this.#moved()));
    this.verdict = h("p.pg-verdict", { role: "status" });
    this.reach = h("p.as-calc-reach");
    this.facts = h("dl.pg-facts");
    this.bar = h("div.as-calc-bar", { role: "img" });
    this.legend = h("ul.as-calc-legend", { "aria-hidden": "true" });
    const controls = h("div.as-calc-fields", {}, ...this.fields.map((field) => field.element));
    this.element = h("div.as.as-calc", {}, controls, this.verdict, this.reach, this.facts, this.bar, this.legend);
    parent.append(this.element);
    this.rests = debounce(() => this.#tell(), REST);
  }

  /** Takes what Python gives, unless the visitor is ahead of it. */
  receive({ data, setTriggerValue }) {
    this.report = (values) => setTriggerValue("set", values);
    this.query = data.query;
    if (this.moving) return;
    for (const [place, { value }] of data.fields.entries()) this.fields[place].set(value);
    this.#draw(data.told);
  }

  close() {
    this.rests.cancel();
    this.element.remove();
  }

  get #values() {
    return Object.fromEntries(this.fields.map((field) => [field.name, field.value]));
  }

  #moved() {
    this.moving = true;
    this.rests();
    this.#ask();
  }

  #tell() {
    this.moving = false;
    this.report(this.#values);
  }

  /** Asks for the values as they are; those that come meanwhile are asked for next, the last alone. */
  async #ask() {
    this.stale = true;
    if (this.asking) return;
    this.asking = true;
    while (this.stale) {
      this.stale = false;
      this.#draw(await read(`/attnscope/calculation?${new URLSearchParams(this.#values)}&${this.query}`));
    }
    this.asking = false;
  }

  #draw(told) {
    const failed = Boolean(told.error);
    this.verdict.className = `pg-verdict ${told.fits ? "pg-fits" : "pg-over"}`;
    this.verdict.replaceChildren(
      h("strong", { text: failed ? "No answer" : told.word }),
      " ",
      h("span", { text: failed ? `${told.error} ${told.remedy ?? ""}` : told.words }),
    );
    if (failed) return;
    this.reach.textContent = told.reach;
    this.facts.replaceChildren(
      ...told.facts.map(([name, value]) => h("div", {}, h("dt", { text: name }), h("dd", { text: value }))),
    );
    const wall = told.wall;
    this.bar.setAttribute("aria-label", `Memory at the worst moment: ${told.alt}`);
    this.bar.replaceChildren(
      ...told.parts.map(segment),
      ...(wall ? [h("i.as-calc-wall", { style: `left:${100 * wall.share}%` }, h("span", { text: wall.words }))] : []),
    );
    for (const part of this.bar.querySelectorAll("div")) part.firstChild.hidden = part.scrollWidth > part.clientWidth;
    this.legend.replaceChildren(...told.parts.map(entry));
  }
}

function segment({ name, words, portion, share, colour, ink }) {
  const style = `width:${100 * share}%;background:${colour};color:${ink}`;
  return h("div", { style, title: `${name}: ${words}, ${portion}` }, h("span", {}, name, h("br"), words));
}

function entry({ name, words, colour }) {
  return h("li", {}, h("i.pg-swatch", { style: `background:${colour}` }), `${name} ${words}`);
}

/** The route's answer, or its refusal as `error` and `remedy`. */
async function read(address) {
  try {
    const answer = await fetch(address, { credentials: "same-origin" });
    return await answer.json();
  } catch {
    return { error: "The server does not answer.", remedy: "Reload the page." };
  }
}

/** @type {WeakMap<object, Panel>} */
const mounted = new WeakMap();

/** What Streamlit calls at every mount and every change. @returns {() => void} Takes it away. */
export default function mount(component) {
  const { parentElement, data } = component;
  if (!mounted.has(parentElement)) mounted.set(parentElement, new Panel(parentElement, data));
  mounted.get(parentElement).receive(component);
  return () => {
    mounted.get(parentElement)?.close();
    mounted.delete(parentElement);
  };
}
