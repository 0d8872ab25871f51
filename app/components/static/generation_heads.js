/** Layers by heads: a bar a head, by where the mass of one token's row went; a click looks through that head. */

import { h } from "./dom.js";

export class HeadsGrid {
  /** @param {(chosen: {layer: number, head: number | null}) => void} onpick */
  constructor(onpick) {
    this.onpick = onpick;
    this.legend = h("ul.as-gen-legend");
    this.cells = h("div.as-gen-grid", { role: "group", "aria-label": "Every layer and head" });
    this.words = h("p.as-note", { role: "status" });
    this.element = h("div", {}, this.legend, h("div.as-gen-scroll", {}, this.cells), this.words);
    this.bars = new Map();
  }

  /**
   * @param {(number | null)[][][]} shares By layer, head and part. @param {[string, string][]} parts Key and title.
   * @param {{layer: number, head: number | null}} chosen
   */
  draw(shares, parts, chosen) {
    const shape = `${shares.map((heads) => heads.length)} ${parts.map(([key]) => key)}`;
    if (shape !== this.shape) this.#build(shares, parts, shape);
    shares.forEach((heads, layer) =>
      heads.forEach((mass, head) => {
        const { cell, segments } = this.bars.get(`${layer}.${head}`);
        segments.forEach((segment, at) => (segment.style.flexGrow = String(mass[at] ?? 0)));
        const words = `layer ${layer}, head ${head}: ${told(mass, parts)}`;
        cell.title = words;
        cell.setAttribute("aria-label", words);
        const isChosen = layer === chosen.layer && (chosen.head === null || head === chosen.head);
        cell.setAttribute("aria-pressed", String(isChosen));
      }),
    );
    const { layer, head } = chosen;
    const mass = head === null ? mean(shares[layer]) : shares[layer][head];
    this.words.textContent = `${head === null ? `Layer ${layer}, mean of its heads` : `Layer ${layer}, head ${head}`}: ${told(mass, parts)}`;
  }

  #build(shares, parts, shape) {
    this.shape = shape;
    this.bars.clear();
    this.legend.replaceChildren(
      ...parts.map(([key, title]) => h("li", {}, h(`i.as-part.as-part-${key}`), h("span", { text: title }))),
    );
    const widest = Math.max(...shares.map((heads) => heads.length));
    this.cells.style.gridTemplateColumns = `auto repeat(${widest}, minmax(26px, 1fr))`;
    const rows = shares.flatMap((heads, layer) => {
      const title = `Layer ${layer}, the mean of its heads`;
      const name = h("button.as-gen-layer", { type: "button", title, text: String(layer) });
      name.addEventListener("click", () => this.onpick({ layer, head: null }));
      const cells = heads.map((_, head) => this.#cell(layer, head, parts));
      return [name, ...cells, ...Array.from({ length: widest - heads.length }, () => h("span"))];
    });
    this.cells.replaceChildren(...rows);
  }

  #cell(layer, head, parts) {
    const segments = parts.map(([key]) => h(`i.as-part.as-part-${key}`));
    const cell = h("button.as-gen-cell", { type: "button", onclick: () => this.onpick({ layer, head }) }, ...segments);
    this.bars.set(`${layer}.${head}`, { cell, segments });
    return cell;
  }
}

function mean(heads) {
  return heads[0].map((_, part) => heads.reduce((sum, mass) => sum + (mass[part] ?? 0), 0) / heads.length);
}

function told(mass, parts) {
  return parts.map(([, title], at) => `${title} ${(100 * (mass[at] ?? 0)).toFixed(1)} %`).join(", ");
}
