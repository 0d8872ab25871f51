/** One text lit several times over, side by side, each by shares of its own; a click pins another token. */

import { h } from "./dom.js";
import { count, label } from "./text.js";
import { readTheme } from "./theme.js";
import { TokenText } from "./tokentext.js";
import { TopList } from "./toplist.js";
import { largest } from "./words.js";

const TOP = 6;

/** The text lit by one set of shares. */
class Lit {
  constructor({ onhover, onpick, onkey }) {
    this.heading = h("h2");
    this.text = new TokenText({
      name: "",
      onhover,
      onpick,
      onkey,
      onwindow: (token) => this.#move(token),
    });
    this.top = new TopList();
    const body = h("div.as-strip-body", {}, h("div", {}, this.text.element), this.top.element);
    this.element = h("section.as-lit-one", {}, h("div.as-head", {}, this.heading), body);
  }

  show({ text, pinned }, { name, positions, shares, words }) {
    const anew = text !== this.given;
    this.given = text;
    this.pinned = pinned;
    this.heading.textContent = name;
    this.text.element.setAttribute("aria-label", name);
    if (anew) this.text.build(text, { merged: false, at: pinned });
    this.text.bring(pinned);
    this.values = new Float32Array(text.tokens.length);
    positions.forEach((position, at) => (this.values[position] = shares[at]));
    this.#shine();
    const entries = largest(this.values, TOP).map((place) => this.#entry(place));
    this.top.show(this.#entry(pinned), entries, { direction: "pays", whole: true });
    const subject = h("bdi.as-token", { text: this.text.name(pinned) });
    this.top.subject.replaceChildren(subject, ` ${count(pinned)} ${words}`);
  }

  /** The share of the token under the pointer, which stands in every text. */
  point(place) {
    this.text.classify("as-pointed", place === null ? [] : [place]);
    const element = place === null ? null : this.text.elementOf(place);
    if (element) element.title = `${this.text.name(place)} ${place}: ${(100 * this.values[place]).toPrecision(3)} %`;
  }

  #entry(place) {
    return { name: this.text.name(place), position: place, value: this.values[place] };
  }

  #shine() {
    const [most] = largest(this.values, 1);
    this.text.shine(this.values, most === undefined ? 0 : this.values[most]);
    this.text.classify("as-pinned", [this.pinned]);
  }

  #move(token) {
    this.text.fillWindow(Math.min(Math.max(0, Math.round(token)), this.values.length - 1));
    this.#shine();
  }
}

class LitTexts {
  constructor(parent) {
    this.root = h("div.as.as-lit-texts");
    parent.append(this.root);
    this.parts = [];
    this.key = "";
  }

  /** Takes what Python gives: a text, the token pinned, and the shares that light it. */
  receive({ data, setStateValue }) {
    this.report = (pinned) => setStateValue("view", { pinned, turn: performance.timeOrigin + performance.now() });
    this.root.classList.toggle("as-dark", readTheme(this.root).dark);
    const { lights, pinned } = data;
    const key = JSON.stringify(data.text);
    // The same text is the same object, so that its elements stay while only the light changes.
    if (key !== this.key) Object.assign(this, { key, text: data.text });
    if (this.parts.length !== lights.length) {
      this.parts = lights.map(() => this.#lit());
      this.root.replaceChildren(...this.parts.map((part) => part.element));
    }
    this.pinned = pinned;
    this.parts.forEach((part, at) => part.show({ text: this.text, pinned }, lights[at]));
  }

  close() {
    this.root.remove();
  }

  #lit() {
    const part = new Lit({
      onhover: (place) => this.parts.forEach((each) => each.point(place)),
      onpick: (place) => this.report(place),
      onkey: (event) => this.#key(part, event),
    });
    return part;
  }

  #key(part, event) {
    const last = this.text.tokens.length - 1;
    const from = this.cursor ?? this.pinned;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.cursor = null;
      return this.report(from);
    }
    const next = {
      ArrowLeft: () => from - 1,
      ArrowRight: () => from + 1,
      ArrowUp: () => part.text.line(from, -1),
      ArrowDown: () => part.text.line(from, 1),
      Home: () => 0,
      End: () => last,
    }[event.key];
    if (!next) return undefined;
    event.preventDefault();
    this.cursor = Math.min(Math.max(0, next()), last);
    part.text.bring(this.cursor);
    part.text.reveal(this.cursor);
    part.text.element.setAttribute("aria-activedescendant", `${part.text.id}-${this.cursor}`);
    return this.parts.forEach((each) => each.point(this.cursor));
  }
}

/** @type {WeakMap<object, LitTexts>} */
const mounted = new WeakMap();

/** What Streamlit calls at every mount and every change. @returns {() => void} Takes the texts away. */
export default function mount(component) {
  const { parentElement } = component;
  if (!mounted.has(parentElement)) mounted.set(parentElement, new LitTexts(parentElement));
  mounted.get(parentElement).receive(component);
  return () => {
    mounted.get(parentElement)?.close();
    mounted.delete(parentElement);
  };
}
