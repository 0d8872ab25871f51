/** Token text made safe and visible, and the sentences that stand in for pictures. */

/** What a cell of several pairs shows of them. */
export const POOLED = { max: "largest", mean: "mean", sum: "sum of" };
const NAMED = new Map([
  [0, "NUL"],
  [0x061c, "ALM"],
  [0x200b, "ZWSP"],
  [0x200c, "ZWNJ"],
  [0x200d, "ZWJ"],
  [0x200e, "LRM"],
  [0x200f, "RLM"],
  [0x202a, "LRE"],
  [0x202b, "RLE"],
  [0x202c, "PDF"],
  [0x202d, "LRO"],
  [0x202e, "RLO"],
  [0x2060, "WJ"],
  [0x2066, "LRI"],
  [0x2067, "RLI"],
  [0x2068, "FSI"],
  [0x2069, "PDI"],
  [0xfeff, "BOM"],
]);
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g;

/** Marks and control characters that would be invisible, or would reorder the page, as visible placeholders. */
export function visible(token) {
  return token.replace(HIDDEN, (character) => {
    const code = character.codePointAt(0);
    return `⟨${NAMED.get(code) ?? code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/**
 * A token as running text: placeholders for what cannot be seen, a mark where a line ends. Of several ends in a row
 * only the last breaks the line, so that empty lines take no room; `more` says that the next token goes on with one.
 */
export function running(token, more) {
  const marked = visible(token).replaceAll("\n", "↵").replaceAll("\t", "⇥\t");
  return marked.replace(/↵(?!↵)/g, (mark, at) => (more && at === marked.length - 1 ? mark : "↵\n"));
}

/** A token as a short label: its outer space shown as a dot only when it is nothing but space. */
export function label(token) {
  const shown = visible(token).replaceAll("\n", "↵").replaceAll("\t", "⇥");
  if (shown.trim()) return shown.trim();
  return shown.length ? "␣".repeat(Math.min(shown.length, 4)) : "∅";
}

/** A number in few, steady digits: 0.83, 96, 1.4e-6. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) return value.toExponential(digits - 1).replace("e+", "e");
  if (size >= 100) return value.toFixed(size >= 1000 ? 0 : 1);
  return value.toPrecision(digits);
}

/** A weight, in the steady width a column of them needs. */
export function weight(value) {
  if (Number.isNaN(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.0005) return value.toExponential(1);
  return value.toFixed(3);
}

/** A title inside a sentence. */
export function inSentence(title) {
  return title.charAt(0).toLowerCase() + title.slice(1);
}

/** Whole numbers with thin spaces between thousands. */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** A diagnostic with its unit; shares stay plain numbers between 0 and 1. */
export function measure(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const text =
    unit === "share" || unit === "" ? value.toFixed(value !== 0 && Math.abs(value) < 0.01 ? 4 : 2) : number(value);
  return unit === "share" || unit === "" ? text : `${text} ${unit}`;
}

/**
 * What a map shows, in words.
 * @param {{title: string, facts: string[], region: string,
 *   pair: {query: string, key: string, value: number} | null}} what
 */
export function describeMap({ title, facts, pair, region }) {
  const strongest = pair
    ? `; strongest pair shown: query “${pair.query}” to key “${pair.key}”, ${weight(pair.value)}`
    : "";
  return `${title}: ${facts.length ? `${facts.join(", ")}; ` : ""}${region}${strongest}.`;
}
