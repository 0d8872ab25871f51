/** One text of a capture as elements, a unit each: all of a short text, a window of a long one. */

import { button, h } from "./dom.js";
import { label, running } from "./text.js";
import { unitAt, unitsOf } from "./words.js";

export const ALL_AT_ONCE = 1600;
export const WINDOW = 1200;
const HIGHEST = 196; // pixels of a picture's board
const DIM = 0.12; // of the square root of the largest: fainter light is left out
const FAINT = 0.08;

let instances = 0;

export class TokenText {
  /**
   * @param {{name: string, onhover: (place: number | null) => void, onpick: (place: number) => void,
   *   onkey: (event: KeyboardEvent) => void, onwindow: () => void}} parts
   */
  constructor({ name, onhover, onpick, onkey, onwindow }) {
    Object.assign(this, { onhover, onwindow });
    this.id = `as-token-${(instances += 1)}`;
    const placed = (work) => (event) => {
      const place = event.target.dataset?.place;
      if (place !== undefined) work(Number(place));
    };
    this.element = h("div.as-text.as-tokens", {
      role: "listbox",
      tabindex: "0",
      "aria-label": name,
      onkeydown: onkey,
      onpointerover: placed(onhover),
      onpointerleave: () => onhover(null),
      onclick: placed(onpick),
    });
    this.earlier = button("↑ earlier tokens", () => this.onwindow(this.window[0] - WINDOW / 2));
    this.later = button("↓ later tokens", () => this.onwindow(this.window[1] + WINDOW / 2));
  }

  /** @param {{tokens: string[], words: number[] | null, marks: number[]}} text @param {number} at The token in sight. */
  build({ tokens, words, marks, grid, picture }, { merged, at }) {
    this.tokens = tokens;
    this.patches = grid ? { rows: grid[0], columns: grid[1], picture } : null;
    this.marks = new Set(marks);
    this.units = unitsOf(tokens.length, words, merged);
    this.fillWindow(at);
    requestAnimationFrame(() => this.reveal(unitAt(this.units, at)));
  }

  /** The elements around a token. */
  fillWindow(token) {
    const total = this.units.length;
    const middle = unitAt(this.units, token);
    const start = total <= ALL_AT_ONCE ? 0 : Math.max(0, Math.min(total - WINDOW, middle - WINDOW / 2));
    const end = total <= ALL_AT_ONCE ? total : start + WINDOW;
    this.window = [start, end];
    const parts = this.units.slice(start, end).map((unit, place) => this.#tokenElement(unit, start + place));
    this.elements = parts;
    this.lights = [];
    const placed = this.patches ? this.#onPicture(parts) : parts.flatMap((part, at) => this.#spaced(part, start + at));
    this.element.replaceChildren(...(start > 0 ? [this.earlier] : []), ...placed, ...(end < total ? [this.later] : []));
    this.element.classList.toggle("as-of-picture", Boolean(this.patches));
  }

  /** The patches where they lie on the picture that the model saw, after what stands for all of it. */
  #onPicture(parts) {
    const { rows, columns, picture } = this.patches;
    const cells = parts.slice(parts.length - rows * columns);
    for (const cell of cells) {
      cell.title = cell.textContent;
      cell.textContent = "";
      cell.classList.add("as-patch");
    }
    const board = h("div.as-board", { role: "presentation" }, ...cells);
    const side = Math.max(8, Math.min(40, Math.floor(HIGHEST / rows)));
    board.style.gridTemplate = `repeat(${rows}, ${side}px) / repeat(${columns}, ${side}px)`;
    board.style.backgroundImage = `url("${picture}")`;
    return [...parts.slice(0, parts.length - rows * columns), board];
  }

  #tokenElement({ from, to }, place) {
    const text = this.tokens.slice(from, to).join("");
    const shown = running(text, this.tokens[to]?.startsWith("\n")).replace(/^ +(?=\S)/, "");
    const element = h("bdi.as-t", { role: "option", id: `${this.id}-${place}`, "data-place": place, text: shown });
    if (this.isSpecial(place)) element.classList.add("as-special");
    return element;
  }

  /** A token's element after the space that precedes its text, so that an outline hugs the word. */
  #spaced(element, place) {
    const { from, to } = this.units[place];
    const text = this.tokens.slice(from, to).join("");
    const [space] = text.match(/^ +(?=\S)/) ?? [""];
    return space ? [space, element] : [element];
  }

  /** The tokens of the window, `[from, to)`. */
  get shown() {
    return [this.units[this.window[0]].from, this.units[this.window[1] - 1].to];
  }

  /** Makes sure that a unit has an element. */
  bring(place) {
    if (place < this.window[0] || place >= this.window[1]) this.fillWindow(this.units[place].from);
  }

  name(place) {
    const { from, to } = this.units[place];
    return label(this.tokens.slice(from, to).join(""));
  }

  isSpecial(place) {
    const { from, to } = this.units[place];
    for (let at = from; at < to; at += 1) if (!this.marks.has(at)) return false;
    return true;
  }

  elementOf(place) {
    return this.elements[place - this.window[0]] ?? null;
  }

  /** Gives a class to one unit alone, or to none. @param {number[]} places */
  classify(name, places) {
    for (const element of this.element.querySelectorAll(`.${name}`)) element.classList.remove(name);
    for (const place of places) this.elementOf(place)?.classList.add(name);
  }

  /** Lights every unit by its value. @param {number} most The largest value shown; 0 puts the lights out. */
  shine(values, most, shown = () => true) {
    this.element.classList.toggle("as-lit", most > 0);
    this.elements.forEach((element, index) => {
      const place = this.window[0] + index;
      const value = values[place];
      const light =
        most > 0 && value > 0 && shown(place) ? (Math.min(1, Math.sqrt(value / most)) - DIM) / (1 - DIM) : 0;
      const text = light < FAINT ? "0" : light.toFixed(2);
      if (this.lights[index] !== text) element.style.setProperty("--light", text);
      this.lights[index] = text;
    });
  }

  /** Scrolls the text, and only the text, until a token can be seen. */
  reveal(place) {
    const element = this.elementOf(place);
    if (!element) return;
    const { offsetTop: top, offsetHeight: height } = element;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top - 6;
    else if (top + height > scrollTop + clientHeight) this.element.scrollTop = top + height - clientHeight + 6;
  }

  /** The unit above or below another on the page. */
  line(place, step) {
    const own = this.elementOf(place);
    if (!own) return place;
    for (let at = place + step, best = null; ; at += step) {
      const element = this.elementOf(at);
      if (!element) return best ?? place;
      if (element.offsetTop === own.offsetTop) continue;
      if (best !== null && element.offsetTop !== this.elementOf(best).offsetTop) return best;
      const nearer =
        best === null ||
        Math.abs(element.offsetLeft - own.offsetLeft) < Math.abs(this.elementOf(best).offsetLeft - own.offsetLeft);
      if (nearer) best = at;
    }
  }
}
