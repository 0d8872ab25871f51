/** The prompt as text that lights up: where the token under the pointer looks, or who looks at it. */

import { isAbort } from "./capture.js";
import { checkbox, h, segmented, select } from "./dom.js";
import { Minimap } from "./minimap.js";
import { HeadRows } from "./rows.js";
import { count, label } from "./text.js";
import { ALL_AT_ONCE, TokenText } from "./tokentext.js";
import { TopList } from "./toplist.js";
import { layerName, lengths } from "./view.js";
import { largest, towards, unitAt } from "./words.js";

const TOP = 6;
const MERGE_NOTE =
  "Sub-words shown as words: what a word receives is the sum over its tokens as keys," +
  " what it pays is the mean over its tokens as queries";

export class Tokens {
  /**
   * @param {{store: object, theme: () => object, announce: (text: string) => void,
   *   onpoint: (at: object) => void}} parts
   */
  constructor({ store, theme, onpoint, announce }) {
    Object.assign(this, { store, onpoint, announce });
    const text = (name, side) =>
      new TokenText({
        name,
        onhover: (place) => this.#hover(side, place),
        onpick: (place) => this.#pin(side, place),
        onkey: (event) => this.#key(side, event),
        onwindow: (token) => this.#moveWindow(this.#pair(side).asked, token),
      });
    this.sides = { queries: text("Tokens of the prompt", "pays"), keys: text("Tokens of the source", "receives") };
    this.top = new TopList();
    this.minimap = new Minimap({ theme, onpick: (token) => this.#moveWindow(this.sides.queries, token) });
    this.tools = h("div.as-bar");
    this.title = h("h2", { text: "Tokens" });
    this.next = h("span.as-next", { title: "The most probable next tokens, with their probabilities" });
    this.frames = h("div.as-text-frame");
    this.element = h("section.as-strip", { "aria-label": "Tokens" });
    this.element.append(
      h("div.as-head", {}, this.title, this.next, this.tools),
      h("div.as-strip-body", {}, this.frames, this.top.element),
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
    Object.assign(this, { cursor: null, hovered: null, over: null });
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
    this.frames.classList.toggle("as-hide-special", view.hide_special);
    this.#showPinned();
    this.#light();
  }

  /** Outlines the pair the pointer is on in the map, or nothing. */
  point(pair) {
    const { queries, keys } = this.sides;
    const at = (text, token) => (pair ? [unitAt(text.units, token)] : []);
    if (this.read) {
      queries.classify("as-pointed", at(queries, pair?.query));
      keys.classify("as-pointed", at(keys, pair?.key));
    } else queries.classify("as-pointed", [...at(queries, pair?.query), ...at(queries, pair?.key)]);
  }

  #buildTools() {
    const { view } = this.store;
    const change = (name) => (value) => this.store.change({ [name]: value });
    const turn = (direction) => this.store.change({ direction, ...(this.read ? { pinned: null } : {}) });
    this.direction = segmented({
      label: "Direction",
      options: [
        ["pays", "pays", "Light shows what the chosen token attends to"],
        ["receives", "receives", "Light shows which tokens attend to the chosen one"],
      ],
      value: view.direction,
      onchange: turn,
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
    const { tokens, keys } = sequence;
    this.title.textContent = keys
      ? `${count(tokens.length)} target tokens, ${count(keys.tokens.length)} ${keys.grid ? "places of the picture" : "of the source"}`
      : `${count(tokens.length)} ${sequence.grid ? "places of the picture" : "tokens"}`;
  }

  #buildText() {
    const { view } = this.store;
    const sequence = this.summary.sequences[view.sequence];
    this.read = sequence.keys;
    const { queries, keys } = this.sides;
    const last = sequence.tokens.length - 1;
    const pinned = view.pinned ?? last;
    queries.build(sequence, { merged: view.merged, at: Math.min(pinned, last) });
    if (this.read) keys.build(this.read, { merged: view.merged, at: 0 });
    const named = (name, text) => h("div.as-named", {}, h("p.as-side", { text: name }), text.element);
    const texts = this.read ? [named("source", keys), named("target", queries)] : [queries.element];
    this.frames.replaceChildren(this.minimap.element, ...texts);
    this.#showWindow();
    this.#showNext();
  }

  /** Who is asked in a direction, and whose light answers: one text, or two that read one another. */
  #pair(direction) {
    const { queries, keys } = this.sides;
    if (!this.read) return { asked: queries, lit: queries };
    return direction === "pays" ? { asked: queries, lit: keys } : { asked: keys, lit: queries };
  }

  /** Between two texts the direction is that of the text under the pointer. */
  get #direction() {
    return (this.read && this.over) || this.store.view.direction;
  }

  #showWindow() {
    const { queries } = this.sides;
    this.minimap.setWindow(queries.shown, queries.tokens.length);
  }

  /** What the model would say next, or of a picture. */
  #showNext() {
    const sequence = this.summary.sequences[this.store.view.sequence];
    const next = sequence.next_tokens ?? [];
    const parts = next
      .slice(0, 5)
      .flatMap(([token, share]) => [", ", h("bdi", { text: label(token) }), ` ${share.toFixed(2)}`]);
    this.next.replaceChildren(...(parts.length ? [sequence.picture ? "class: " : "next: ", ...parts.slice(1)] : []));
  }

  #moveWindow(text, token) {
    text.fillWindow(Math.min(Math.max(0, Math.round(token)), text.tokens.length - 1));
    this.#showWindow();
    this.#showPinned();
    this.#light();
    text.element.scrollTop = text.element.scrollHeight / 2 - text.element.clientHeight / 2;
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
    const wanted = !this.read && this.sides.queries.tokens.length > ALL_AT_ONCE;
    this.minimap.setHead({ capture: this.capture, layer, head, sequence, queries, keys }, wanted);
  }

  /** The unit the light is about: under the pointer, under the cursor, pinned, or the last. */
  get #subject() {
    if (this.hovered !== null && this.hovered !== undefined) return this.hovered;
    if (this.cursor !== null && this.cursor !== undefined) return this.cursor;
    const direction = this.#direction;
    const { units } = this.#pair(direction).asked;
    return unitAt(units, Math.min(this.store.view.pinned ?? Infinity, this.rows.askable(direction) - 1));
  }

  async #light() {
    if (!this.rows) return;
    const direction = this.#direction;
    const { asked, lit } = this.#pair(direction);
    const subject = this.#subject;
    const { from, to } = asked.units[subject];
    const tokens = Array.from({ length: to - from }, (_, index) => from + index);
    const known = tokens.map((token) => this.rows.atOnce(token, direction));
    const question = { asked, lit, subject, direction };
    this.asking?.abort();
    if (known.every(Boolean)) this.#shine(question, known, true);
    if (known.every((part) => part && !part.rounded)) return undefined;
    this.asking = new AbortController();
    const { signal } = this.asking;
    const all = this.hovered === null || this.hovered === undefined;
    const { rows } = this;
    try {
      const how = { window: lit.shown, all, signal };
      const parts = await Promise.all(tokens.map((token) => rows.get(token, direction, how)));
      if (!signal.aborted && rows === this.rows) this.#shine(question, parts, parts[0].start === 0);
    } catch (error) {
      if (!isAbort(error)) this.top.fail(error.message);
    }
    return undefined;
  }

  #shine({ asked, lit, subject, direction }, parts, whole) {
    const { hide_special: bare } = this.store.view;
    const values = towards(parts, lit.units, direction);
    const shown = (place) => !bare || !lit.isSpecial(place);
    const tops = largest(values, TOP, shown);
    lit.shine(values, tops.length ? values[tops[0]] : 0, shown);
    if (asked !== lit) asked.shine([], 0);
    lit.classify("as-subject", []);
    asked.classify("as-subject", [subject]);
    const entry = (text, place) => ({ name: text.name(place), position: text.units[place].from, value: values[place] });
    const entries = tops.map((place) => entry(lit, place));
    this.top.show(entry(asked, subject), entries, { direction, whole });
  }

  #showPinned() {
    const { pinned, direction } = this.store.view;
    const { asked } = this.#pair(direction);
    const place = pinned === null ? -1 : unitAt(asked.units, pinned);
    if (pinned !== null) {
      asked.bring(place);
      this.#showWindow();
    }
    for (const text of Object.values(this.sides)) {
      text.classify("as-pinned", text === asked && place >= 0 ? [place] : []);
      for (const element of text.element.querySelectorAll("[aria-selected]")) element.removeAttribute("aria-selected");
    }
    asked.elementOf(place)?.setAttribute("aria-selected", "true");
    this.#markMap();
  }

  #markMap() {
    const chosen = this.hovered ?? this.cursor ?? this.store.view.pinned;
    if (chosen === null || chosen === undefined) return this.onpoint({});
    const direction = this.#direction;
    const { from } = this.#pair(direction).asked.units[this.#subject];
    return this.onpoint({ [direction === "pays" ? "query" : "key"]: from });
  }

  #hover(side, place) {
    if (place === this.hovered && (place === null || side === this.over)) return;
    this.hovered = place;
    this.over = place === null ? null : side;
    if (place !== null && this.read) this.cursor = null;
    this.#markMap();
    this.#light();
  }

  #pin(side, place) {
    const { pinned, direction: before } = this.store.view;
    const direction = this.read ? side : before;
    const { asked } = this.#pair(direction);
    const { from } = asked.units[place];
    const again = pinned !== null && direction === before && unitAt(asked.units, pinned) === place;
    this.cursor = null;
    this.store.change({ pinned: again ? null : from, direction });
    this.announce(again ? "Unpinned" : `Pinned ${asked.name(place)}, position ${from}: ${this.top.words ?? ""}`);
  }

  #key(side, event) {
    if (this.read && this.over !== side) {
      Object.assign(this, { over: side, hovered: null, cursor: null });
    }
    const { asked } = this.#pair(this.#direction);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return this.#pin(side, this.#subject);
    }
    const next = {
      ArrowLeft: (p) => p - 1,
      ArrowRight: (p) => p + 1,
      ArrowUp: (p) => asked.line(p, -1),
      ArrowDown: (p) => asked.line(p, 1),
      Home: () => 0,
      End: () => asked.units.length - 1,
    }[event.key];
    if (!next) return undefined;
    event.preventDefault();
    const place = Math.min(Math.max(0, next(this.#subject)), asked.units.length - 1);
    this.hovered = null;
    this.cursor = place;
    asked.bring(place);
    this.#showWindow();
    asked.reveal(place);
    asked.element.setAttribute("aria-activedescendant", `${asked.id}-${place}`);
    this.#markMap();
    return this.#light();
  }
}

/** The strip reads weights; scores do not add up to anything. */
const readingOf = ({ reading }) => (reading === "value_weighted" ? reading : "weight");
