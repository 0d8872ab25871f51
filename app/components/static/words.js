/** Sub-words as words: which tokens make one, and how their attention adds up. Pure. */

/** @typedef {{from: number, to: number}} Unit Tokens `from` up to, not including, `to`. */

/**
 * The units of a text: one a token, or one a word.
 * @param {number} length @param {(number | null)[] | null} words The word each token belongs to.
 * @returns {Unit[]}
 */
export function unitsOf(length, words, merged) {
  const units = [];
  for (let index = 0; index < length; index += 1) {
    const word = words?.[index];
    const same = merged && index > 0 && word !== null && word !== undefined && word >= 0 && word === words[index - 1];
    if (same) units.at(-1).to = index + 1;
    else units.push({ from: index, to: index + 1 });
  }
  return units;
}

/** The unit a token is in. */
export function unitAt(units, token) {
  let low = 0;
  let high = units.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (units[middle].from <= token) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * The attention of one unit towards every unit: the sum over a word's keys, the mean over its queries.
 * @param {{values: Float32Array, start: number}[]} parts One for each token of the asking unit.
 * @param {Unit[]} units @param {string} direction
 * @returns {Float32Array} NaN for units that are hidden, or not known.
 */
export function towards(parts, units, direction) {
  const out = new Float32Array(units.length).fill(NaN);
  units.forEach(({ from, to }, place) => {
    let sum = 0;
    let seen = 0;
    for (const { values, start } of parts) {
      for (let token = from; token < to; token += 1) {
        const value = values[token - start];
        if (value === undefined || Number.isNaN(value)) continue;
        sum += value;
        seen += 1;
      }
    }
    const queries = direction === "pays" ? parts.length : to - from;
    if (seen) out[place] = sum / queries;
  });
  return out;
}

/** Places of the largest values, largest first. */
export function largest(values, many, keep = () => true) {
  const places = [];
  values.forEach((value, place) => {
    if (Number.isNaN(value) || value <= 0 || !keep(place)) return;
    if (places.length === many && value <= values[places[many - 1]]) return;
    let at = places.length;
    while (at > 0 && values[places[at - 1]] < value) at -= 1;
    places.splice(at, 0, place);
    if (places.length > many) places.pop();
  });
  return places;
}
