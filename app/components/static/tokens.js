/** The prompt as text that lights up: where the token under the pointer looks, or who looks at it. */

import { isAbort } from "./capture.js";
import { button, checkbox, h, segmented, select } from "./dom.js";
import { Minimap } from "./minimap.js";
import { HeadRows } from "./rows.js";
import { count, label, running } from "./text.js";
import { TopList } from "./toplist.js";
import { layerName, lengths } from "./view.js";
import { largest, towards, unitAt, unitsOf } from "./words.js";

const ALL_AT_ONCE = 1600;
const WINDOW = 1200;
const TOP = 6;
const DIM = 0.12; // of the square root of the largest: fainter light is left out
const FAINT = 0.08;
const MERGE_NOTE =
  "Sub-words shown as words: what a word receives is the sum over its tokens as keys," +
  " what it pays is the mean over its tokens as queries";

let instances = 0;

export class Tokens {
  /**
   * @param {{store: object, theme: () => object, announce: (text: string) => void,
   *   onpoint: (at: object) => void}} parts
   */
  constructor({ store, theme, onpoint, announce }) {
    Object.assign(this, { store, onpoint, announce });
    this.name = `as-token-${(instances += 1)}`;
    this.text = h("div.as-text.as-tokens", {
      role: "listbox",
      tabindex: "0",
      "aria-label": "Tokens of the prompt",
      onkeydown: (event) => this.#key(event),
      onpointerover: (event) => this.#over(event),
      onpointerleave: () => this.#leave(),
      onclick: (event) => this.#click(event),
    });
    this.top = new TopList();
    this.minimap = new Minimap({ theme, onpick: (token) => this.#moveWindow(token) });
    this.tools = h("div.as-bar");
    this.title = h("h2", { text: "Tokens" });
    this.next = h("span.as-next", { title: "The most probable next tokens, with their probabilities" });
    this.earlier = button("↑ earlier tokens", () => this.#moveWindow(this.window[0] - WINDOW / 2));
    this.later = button("↓ later tokens", () => this.#moveWindow(this.window[1] + WINDOW / 2));
    this.element = h("section.as-strip", { "aria-label": "Tokens" });
    this.element.append(
      h("div.as-head", {}, this.title, this.next, this.tools),
      h("div.as-strip-body", {}, h("div.as-text-frame", {}, this.minimap.element, this.text), this.top.element),
    );
  }

  setCapture(capture, summary) {
    this.capture = capture;
    this.summary = summary;
    this.shape = "";
    this.#buildTools();
  }

  /** The text, which needs no head: new where the prompt or the units changed. */
  showText() {
    const { view } = this.store;
    this.#showTools(view);
    const shape = JSON.stringify([view.sequence, view.merged]);
    if (shape === this.shape) return;
    this.shape = shape;
    this.cursor = null;
    this.#buildText();
  }

  /** Shows the view: the text, and new light where the head changed. */
  update() {
    const { view } = this.store;
    this.showText();
    const head = JSON.stringify([view.sequence, view.layer, view.head, readingOf(view)]);
    if (head !== this.head || this.rows?.source.capture !== this.capture) {
      this.head = head;
      this.#openHead();
    }
    this.text.classList.toggle("as-hide-special", view.hide_special);
    this.#showPinned();
    this.#light();
  }

  /** Outlines the pair the pointer is on in the map, or nothing. */
  point(pair) {
    for (const element of this.text.querySelectorAll(".as-pointed")) element.classList.remove("as-pointed");
    if (!pair) return;
    for (const token of [pair.query, pair.key]) this.#elementOf(unitAt(this.units, token))?.classList.add("as-pointed");
  }

  #buildTools() {
    const { view } = this.store;
    const change = (name) => (value) => this.store.change({ [name]: value });
    this.direction = segmented({
      label: "Direction",
      options: [
        ["pays", "pays", "Light shows what the chosen token attends to"],
        ["receives", "receives", "Light shows which tokens attend to the chosen one"],
      ],
      value: view.direction,
      onchange: change("direction"),
    });
    this.merged = checkbox({ label: "merge words", value: view.merged, title: MERGE_NOTE, onchange: change("merged") });
    this.special = checkbox({
      label: "leave out special tokens",
      value: view.hide_special,
      title: "Leaves the tokenizer's own marks and padding out of the text and of its shading",
      onchange: change("hide_special"),
    });
    const prompts = this.summary.sequences.map(({ tokens }, index) => [
      String(index),
      `${index + 1}: ${tokens.slice(0, 7).map(label).join(" ").slice(0, 34)}… (${count(tokens.length)})`,
    ]);
    this.prompt = select({
      label: "prompt",
      options: prompts,
      value: String(view.sequence),
      onchange: (value) => this.store.change({ sequence: Number(value), region: null, pinned: null }),
    });
    this.prompt.element.hidden = prompts.length < 2;
    this.tools.replaceChildren(this.prompt.element, this.direction.element, this.merged.element, this.special.element);
  }

  #showTools(view) {
    this.direction.set(view.direction);
    this.merged.set(view.merged);
    this.special.set(view.hide_special);
    this.prompt.set(String(view.sequence));
    const sequence = this.summary.sequences[view.sequence];
    this.merged.field.disabled = !sequence.words;
    this.title.textContent = `${count(sequence.tokens.length)} tokens`;
  }

  #buildText() {
    const { view } = this.store;
    const { tokens, words, marks } = this.summary.sequences[view.sequence];
    this.tokens = tokens;
    this.marks = new Set(marks);
    this.units = unitsOf(tokens.length, words, view.merged);
    this.#fillWindow(view.pinned ?? tokens.length - 1);
    this.#showNext();
    requestAnimationFrame(() => this.#reveal(unitAt(this.units, view.pinned ?? tokens.length - 1)));
  }

  /** The elements around a token: all of a short text, a window of a long one. */
  #fillWindow(token) {
    const total = this.units.length;
    const middle = unitAt(this.units, token);
    const start = total <= ALL_AT_ONCE ? 0 : Math.max(0, Math.min(total - WINDOW, middle - WINDOW / 2));
    const end = total <= ALL_AT_ONCE ? total : start + WINDOW;
    this.window = [start, end];
    const parts = this.units.slice(start, end).map((unit, place) => this.#tokenElement(unit, start + place));
    this.elements = parts;
    this.lights = [];
    this.text.replaceChildren(
      ...(start > 0 ? [this.earlier] : []),
      ...parts.flatMap((part, place) => this.#spaced(part, start + place)),
      ...(end < total ? [this.later] : []),
    );
    this.minimap.setWindow([this.units[start].from, this.units[end - 1].to], this.tokens.length);
  }

  #tokenElement({ from, to }, place) {
    const text = this.tokens.slice(from, to).join("");
    const shown = running(text, this.tokens[to]?.startsWith("\n")).replace(/^ +(?=\S)/, "");
    const element = h("bdi.as-t", { role: "option", id: `${this.name}-${place}`, "data-place": place, text: shown });
    if (this.#isSpecial(place)) element.classList.add("as-special");
    return element;
  }

  /** A token's element after the space that precedes its text, so that an outline hugs the word. */
  #spaced(element, place) {
    const { from, to } = this.units[place];
    const text = this.tokens.slice(from, to).join("");
    const [space] = text.match(/^ +(?=\S)/) ?? [""];
    return space ? [space, element] : [element];
  }

  /** What the model would say next. */
  #showNext() {
    const next = this.summary.sequences[this.store.view.sequence].next_tokens ?? [];
    const parts = next
      .slice(0, 5)
      .flatMap(([token, share]) => [", ", h("bdi", { text: label(token) }), ` ${share.toFixed(2)}`]);
    this.next.replaceChildren(...(parts.length ? ["next: ", ...parts.slice(1)] : []));
  }

  #moveWindow(token) {
    this.#fillWindow(Math.min(Math.max(0, Math.round(token)), this.tokens.length - 1));
    this.#showPinned();
    this.#light();
    this.text.scrollTop = this.text.scrollHeight / 2 - this.text.clientHeight / 2;
  }

  #openHead() {
    const { view } = this.store;
    const { head, sequence } = view;
    const [queries, keys] = lengths(this.summary, sequence, view.layer);
    const layer = layerName(this.summary, view.layer);
    this.rows = new HeadRows({ capture: this.capture, layer, head, sequence, queries, keys, reading: readingOf(view) });
    this.opening?.abort();
    this.opening = new AbortController();
    const { rows } = this;
    const { signal } = this.opening;
    rows.prefetch(signal).then(
      () => this.#light(),
      () => null,
    );
    this.minimap.setHead(
      { capture: this.capture, layer, head, sequence, queries, keys },
      this.tokens.length > ALL_AT_ONCE,
    );
  }

  /** The unit the light is about: under the pointer, under the cursor, pinned, or the last. */
  get #subject() {
    if (this.hovered !== null && this.hovered !== undefined) return this.hovered;
    if (this.cursor !== null && this.cursor !== undefined) return this.cursor;
    const { pinned, direction } = this.store.view;
    return unitAt(this.units, Math.min(pinned ?? Infinity, this.rows.askable(direction) - 1));
  }

  async #light() {
    if (!this.rows) return;
    const { direction } = this.store.view;
    const subject = this.#subject;
    const { from, to } = this.units[subject];
    const tokens = Array.from({ length: to - from }, (_, index) => from + index);
    const known = tokens.map((token) => this.rows.atOnce(token, direction));
    this.asking?.abort();
    if (known.every(Boolean)) this.#shine(subject, known, true);
    if (known.every((part) => part && !part.rounded)) return undefined;
    this.asking = new AbortController();
    const { signal } = this.asking;
    const window = [this.units[this.window[0]].from, this.units[this.window[1] - 1].to];
    const all = this.hovered === null || this.hovered === undefined;
    const { rows } = this;
    try {
      const parts = await Promise.all(tokens.map((token) => rows.get(token, direction, { window, all, signal })));
      if (!signal.aborted && rows === this.rows) this.#shine(subject, parts, parts[0].start === 0);
    } catch (error) {
      if (!isAbort(error)) this.top.fail(error.message);
    }
    return undefined;
  }

  #shine(subject, parts, whole) {
    const { direction, hide_special: bare } = this.store.view;
    const values = towards(parts, this.units, direction);
    const shown = (place) => !bare || !this.#isSpecial(place);
    const tops = largest(values, TOP, shown);
    const most = tops.length ? values[tops[0]] : 0;
    this.elements.forEach((element, index) => {
      const place = this.window[0] + index;
      const value = values[place];
      const light =
        most > 0 && value > 0 && shown(place) ? (Math.min(1, Math.sqrt(value / most)) - DIM) / (1 - DIM) : 0;
      const text = light < FAINT ? "0" : light.toFixed(2);
      if (this.lights[index] !== text) element.style.setProperty("--light", text);
      this.lights[index] = text;
    });
    for (const element of this.text.querySelectorAll(".as-subject")) element.classList.remove("as-subject");
    this.#elementOf(subject)?.classList.add("as-subject");
    this.#list({ subject, values, tops, direction, whole });
  }

  #list({ subject, values, tops, direction, whole }) {
    const entry = (place) => ({
      name: this.#name(place),
      position: this.units[place].from,
      value: values[place],
    });
    this.top.show(entry(subject), tops.map(entry), { direction, whole });
  }

  #name(place) {
    const { from, to } = this.units[place];
    return label(this.tokens.slice(from, to).join(""));
  }

  #isSpecial(place) {
    const { from, to } = this.units[place];
    for (let at = from; at < to; at += 1) if (!this.marks.has(at)) return false;
    return true;
  }

  #elementOf(place) {
    return this.elements[place - this.window[0]] ?? null;
  }

  #showPinned() {
    const { pinned } = this.store.view;
    if (pinned !== null) {
      const place = unitAt(this.units, pinned);
      if (place < this.window[0] || place >= this.window[1]) this.#fillWindow(pinned);
    }
    const place = pinned === null ? -1 : unitAt(this.units, pinned);
    for (const element of this.text.querySelectorAll(".as-pinned")) {
      element.classList.remove("as-pinned");
      element.removeAttribute("aria-selected");
    }
    const element = this.#elementOf(place);
    element?.classList.add("as-pinned");
    element?.setAttribute("aria-selected", "true");
    this.#markMap();
  }

  #markMap() {
    const { from } = this.units[this.#subject];
    const chosen = this.hovered ?? this.cursor ?? this.store.view.pinned;
    const at =
      chosen === null || chosen === undefined ? {} : { [this.store.view.direction === "pays" ? "query" : "key"]: from };
    this.onpoint(at);
  }

  #over(event) {
    const place = event.target.dataset?.place;
    if (place === undefined || Number(place) === this.hovered) return;
    this.hovered = Number(place);
    this.#markMap();
    this.#light();
  }

  #leave() {
    this.hovered = null;
    this.#markMap();
    this.#light();
  }

  #click(event) {
    const place = event.target.dataset?.place;
    if (place !== undefined) this.#pin(Number(place));
  }

  #pin(place) {
    const { from } = this.units[place];
    const { pinned } = this.store.view;
    const again = pinned !== null && unitAt(this.units, pinned) === place;
    this.cursor = null;
    this.store.change({ pinned: again ? null : from });
    this.announce(again ? "Unpinned" : `Pinned ${this.#name(place)}, position ${from}: ${this.top.words ?? ""}`);
  }

  #key(event) {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return this.#pin(this.#subject);
    }
    const next = {
      ArrowLeft: (p) => p - 1,
      ArrowRight: (p) => p + 1,
      ArrowUp: (p) => this.#line(p, -1),
      ArrowDown: (p) => this.#line(p, 1),
      Home: () => 0,
      End: () => this.units.length - 1,
    }[event.key];
    if (!next) return undefined;
    event.preventDefault();
    const place = Math.min(Math.max(0, next(this.#subject)), this.units.length - 1);
    this.hovered = null;
    this.cursor = place;
    if (place < this.window[0] || place >= this.window[1]) this.#fillWindow(this.units[place].from);
    this.#reveal(place);
    this.text.setAttribute("aria-activedescendant", `${this.name}-${place}`);
    this.#markMap();
    return this.#light();
  }

  /** Scrolls the text, and only the text, until a token can be seen. */
  #reveal(place) {
    const element = this.#elementOf(place);
    if (!element) return;
    const { offsetTop: top, offsetHeight: height } = element;
    const { scrollTop, clientHeight } = this.text;
    if (top < scrollTop) this.text.scrollTop = top - 6;
    else if (top + height > scrollTop + clientHeight) this.text.scrollTop = top + height - clientHeight + 6;
  }

  /** The unit above or below another on the page. */
  #line(place, step) {
    const own = this.#elementOf(place);
    if (!own) return place;
    for (let at = place + step, best = null; ; at += step) {
      const element = this.#elementOf(at);
      if (!element) return best ?? place;
      if (element.offsetTop === own.offsetTop) continue;
      if (best !== null && element.offsetTop !== this.#elementOf(best).offsetTop) return best;
      const nearer =
        best === null ||
        Math.abs(element.offsetLeft - own.offsetLeft) < Math.abs(this.#elementOf(best).offsetLeft - own.offsetLeft);
      if (nearer) best = at;
    }
  }
}

/** The strip reads weights; scores do not add up to anything. */
const readingOf = ({ reading }) => (reading === "value_weighted" ? reading : "weight");
