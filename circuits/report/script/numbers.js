// Numbers as words: few digits, a sign where the sign says something, and intervals in brackets.

/**
 * A number with a few digits.
 * @param {number} value
 */
function plain(value) {
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return grouped(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1).replace("-", "−").replace("e−", "e−");
  const digits = size >= 100 ? 1 : size >= 10 ? 2 : 3;
  return (value < 0 ? "−" : "") + size.toFixed(digits);
}

/**
 * The same with its sign in front.
 * @param {number} value
 */
function signed(value) {
  return (value > 0 ? "+" : "") + plain(value);
}

/**
 * A whole number with its digits in groups of three.
 * @param {number} value
 */
function grouped(value) {
  return (value < 0 ? "−" : "") + String(Math.abs(value)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/**
 * A whole number and what it counts.
 * @param {number} value
 * @param {string} what in the singular
 */
function counted(value, what) {
  return `${grouped(value)} ${what}${value === 1 ? "" : "s"}`;
}

/**
 * A number with its interval.
 * @param {number} value
 * @param {?number[]} interval
 */
function within(value, interval) {
  return signed(value) + (interval ? ` [${plain(interval[0])}, ${plain(interval[1])}]` : "");
}

/**
 * The height of a line through points at a place; outside of them that of the nearest.
 * @param {number[]} xs growing
 * @param {number[]} ys
 * @param {number} x
 */
function between(xs, ys, x) {
  if (x <= xs[0]) return ys[0];
  for (let i = 1; i < xs.length; i++) {
    if (x <= xs[i]) return ys[i - 1] + ((ys[i] - ys[i - 1]) * (x - xs[i - 1])) / (xs[i] - xs[i - 1] || 1);
  }
  return ys[ys.length - 1];
}
