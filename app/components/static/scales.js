/** Colours and the scales between a weight and its colour. */

import { h } from "./dom.js";
import { number } from "./text.js";

/** Viridis: perceptually uniform, and safe for colour-blind readers. */
const VIRIDIS = [
  "#440154",
  "#482878",
  "#3e4989",
  "#31688e",
  "#26828e",
  "#1f9e89",
  "#35b779",
  "#6ece58",
  "#b5de2b",
  "#fde725",
];

/** @returns {[number, number, number]} */
function rgb(hex) {
  const value = Number.parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** An OKLCH colour as sRGB bytes. @returns {[number, number, number]} */
function oklch(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((x) => {
    const gamma = x <= 0.0031308 ? 12.92 * x : 1.055 * Math.max(x, 0) ** (1 / 2.4) - 0.055;
    return Math.round(255 * Math.min(Math.max(gamma, 0), 1));
  });
}

const between = (a, b, share) => a.map((x, i) => Math.round(x + (b[i] - x) * share));

function table(stops) {
  return Array.from({ length: 256 }, (_, index) => {
    const at = (index / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    return between(stops[low], stops[low + 1], at - low);
  });
}

const SEQUENTIAL = table(VIRIDIS.map(rgb));

/** Blue to orange through the ground's own lightness: lightness and chroma grow evenly from zero on both sides. */
function diverging(dark) {
  const arm = (hue) =>
    Array.from({ length: 9 }, (_, step) => {
      const share = step / 8;
      return dark ? oklch(0.24 + 0.58 * share, 0.155 * share, hue) : oklch(0.97 - 0.52 * share, 0.155 * share, hue);
    });
  return table([...arm(255).reverse(), ...arm(55).slice(1)]);
}

/** @returns {[number, number, number][]} 256 colours: for values, or for differences. */
export function palette(kind, dark) {
  return kind === "difference" ? diverging(dark) : SEQUENTIAL;
}

/**
 * Shares as a picture, a pixel each; what is masked stays clear, for the hatching lies under it.
 * @param {Float32Array} shares 0..1, NaN where masked @param {[number, number, number][]} colours 256 of them.
 * @returns {string} A data address.
 */
export function picture(shares, { rows, cols }, colours) {
  const canvas = h("canvas", { width: cols, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(cols, rows);
  // A pixel at once, on the little-endian machines that browsers run on.
  const pixels = new Uint32Array(image.data.buffer);
  const packed = Uint32Array.from(colours, ([red, green, blue]) => (255 << 24) | (blue << 16) | (green << 8) | red);
  for (let index = 0; index < shares.length; index += 1) {
    const share = shares[index];
    if (share === share) pixels[index] = packed[Math.min(255, Math.max(0, Math.round(share * 255)))];
  }
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

/**
 * The lowest and highest visible value, where the highest is (−1: none is visible), and whether any cell is masked.
 * @param {Float32Array} values @returns {{low: number, high: number, at: number, masked: boolean}}
 */
export function survey(values) {
  let low = Infinity;
  let high = -Infinity;
  let at = -1;
  let masked = false;
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index];
    if (value < low) low = value;
    if (value > high) {
      high = value;
      at = index;
    }
    if (value !== value) masked = true;
  }
  return at < 0 ? { low: 0, high: 1, at, masked } : { low, high, at, masked };
}

function extremes(values) {
  const { low, high } = survey(values);
  return [low, high];
}

/** Each row divided by its largest visible value. */
function byRow(values, rows, cols) {
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row += 1) {
    let top = 0;
    for (let i = row * cols; i < (row + 1) * cols; i += 1) if (values[i] > top) top = values[i];
    for (let i = row * cols; i < (row + 1) * cols; i += 1) out[i] = top ? values[i] / top : values[i];
  }
  return out;
}

/** The lowest decade worth a colour: the one under what each key would get from an even spread. */
function floorDecade(high, keys) {
  return 10 ** (Math.floor(Math.log10(high / Math.max(keys, 10))) - 1);
}

/**
 * Numbers brought to 0..1 for their colour, with the legend that undoes it. Masked cells stay NaN.
 * @param {Float32Array} values
 * @param {{rows: number, cols: number, scale: string, reading: string, keys: number, limits?: [number, number]}} how
 *   `keys`: length of the axis; `limits`: lowest and highest value of all maps that share the scale.
 * @returns {{shares: Float32Array, legend: {kind: string, ticks: [number, string][], unit: string, low: number,
 *   high: number}}}
 */
export function shade(values, { rows, cols, scale, reading, keys, limits }) {
  const unit = UNITS[reading];
  if (scale === "row") {
    const top = reading === "score" ? softened(values, rows, cols) : byRow(values, rows, cols);
    const ticks = [
      [0, "0"],
      [0.5, "½"],
      [1, "row’s largest"],
    ];
    return { shares: top, legend: { kind: "sequential", ticks, unit: "", low: 0, high: 1 } };
  }
  const [least, most] = limits ?? extremes(values);
  if (scale === "log") {
    const high = reading === "weight" ? Math.max(1, most) : most || 1;
    const low = floorDecade(high, keys);
    const span = Math.log(high / low);
    const shares = values.map((value) => (value > low ? Math.log(value / low) / span : value >= 0 ? 0 : value));
    return { shares, legend: { kind: "sequential", ticks: decades(low, high), unit, low, high } };
  }
  const low = reading === "score" ? least : 0;
  const high = most > low ? most : low + 1;
  const shares = values.map((value) => (value - low) / (high - low));
  const middle = (low + high) / 2;
  const ticks = [
    [0, number(low, 2)],
    [0.5, number(middle, 2)],
    [1, number(high, 2)],
  ];
  return { shares, legend: { kind: "sequential", ticks, unit, low, high } };
}

const UNITS = { weight: "weight", value_weighted: "weight × |v|", score: "score" };

/** Scores row by row, from each row's lowest to its highest. */
function softened(values, rows, cols) {
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row += 1) {
    const [low, high] = extremes(values.subarray(row * cols, (row + 1) * cols));
    for (let i = row * cols; i < (row + 1) * cols; i += 1)
      out[i] = high > low ? (values[i] - low) / (high - low) : values[i] - low;
  }
  return out;
}

function decades(low, high) {
  const ticks = [];
  const span = Math.log10(high / low);
  const step = Math.ceil(span / 4);
  for (let power = Math.floor(Math.log10(high) + 1e-9); power >= Math.log10(low) - 1e-9; power -= step) {
    ticks.unshift([(power - Math.log10(low)) / span, power === 0 ? "1" : `10${superscript(power)}`]);
  }
  return ticks;
}

const superscript = (power) => [...String(power)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("");

/**
 * A difference, symmetric around zero; beside logarithmic maps on a square-root scale, which also shows small ones.
 * @returns {{shares: Float32Array, legend: object, largest: number, at: number}} `at` is the index of the largest.
 */
export function shadeDifference(values, { reading, scale }) {
  let at = -1;
  let largest = 0;
  values.forEach((value, index) => {
    if (Math.abs(value) > largest) [largest, at] = [Math.abs(value), index];
  });
  const reach = largest || 1;
  const root = scale === "log";
  const shares = values.map((value) => {
    const share = value / reach;
    return 0.5 + (root ? Math.sign(share) * Math.sqrt(Math.abs(share)) : share) / 2;
  });
  const inner = [
    [0.25, `−${number(reach / 4, 2)}`],
    [0.5, "0"],
    [0.75, `+${number(reach / 4, 2)}`],
  ];
  const ends = [
    [0, `−${number(reach, 2)}`],
    [1, `+${number(reach, 2)}`],
  ];
  const ticks = [ends[0], ...(root ? inner : inner.slice(1, 2)), ends[1]];
  return {
    shares,
    largest,
    at,
    legend: { kind: "difference", ticks, unit: `${UNITS[reading]} B − A`, low: -reach, high: reach },
  };
}

/** A legend strip: a canvas of the colours and its ticks as text. */
export function drawLegend(element, legend, dark) {
  const colours = palette(legend.kind, dark);
  const canvas = document.createElement("canvas");
  canvas.width = 256;
  canvas.height = 1;
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  colours.forEach((colour, i) => image.data.set([...colour, 255], i * 4));
  context.putImageData(image, 0, 0);
  const ticks = document.createElement("div");
  ticks.className = "as-legend-ticks";
  for (const [share, text] of legend.ticks) {
    const tick = document.createElement("span");
    tick.textContent = text;
    tick.style.left = `${share * 100}%`;
    ticks.append(tick);
  }
  const unit = document.createElement("span");
  unit.className = "as-legend-unit";
  unit.textContent = legend.unit;
  const bar = document.createElement("div");
  bar.className = "as-legend-bar";
  bar.append(canvas, ticks);
  element.replaceChildren(unit, bar);
  element.setAttribute(
    "aria-label",
    `Colour scale, ${legend.unit}: ${legend.ticks.map(([, text]) => text).join(", ")}`,
  );
}
