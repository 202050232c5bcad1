// Points, lines, bands and bars, drawn as SVG; below each a table with the same numbers.

const WIDE = 620;
const HIGH = 300;
const ROOM = { left: 58, right: 14, top: 12, bottom: 46 };

/** Characters of words below the x axis, with room around each, that stand side by side; of more, words stand upright. */
const SIDE_BY_SIDE = 90;

/**
 * @typedef {Object} Series
 * @property {string} name
 * @property {"line"|"points"|"band"|"bars"} look
 * @property {number[]} x
 * @property {number[]} y
 * @property {number[]} [low]
 * @property {number[]} [high]
 * @property {string[]} [names] of its points
 * @property {string|number} colour
 */

/**
 * A chart.
 * @param {{caption: string, series: Series[], x_name: string, y_name: string, logarithmic: boolean, lines_at: number[],
 *   diagonal: boolean, x_ticks: [number, string][]}} block
 */
function chart(block) {
  const axes = axesOf(block);
  const picture = shape("svg", { viewBox: `0 0 ${WIDE} ${HIGH + axes.upright}`, class: "chart", role: "img", "aria-label": block.caption });
  drawFrame(picture, block, axes);
  for (const band of block.series.filter((one) => one.look === "band")) drawBand(picture, band, axes);
  if (block.diagonal) {
    const ends = [Math.max(axes.x.low, axes.y.low), Math.min(axes.x.high, axes.y.high)];
    picture.append(line(axes.across(ends[0]), axes.up(ends[0]), axes.across(ends[1]), axes.up(ends[1]), "guide"));
  }
  for (const one of block.series) drawSeries(picture, one, axes);
  const legend = make("ul", { class: "legend" }, block.series.filter((one) => one.name).map(legendEntry));
  return make("figure", { class: "charted" }, make("figcaption", {}, block.caption), picture, legend, chartTable(block));
}

/** Where numbers stand on the paper. */
function axesOf(block) {
  const xs = block.series.flatMap((one) => one.x);
  const ys = block.series.flatMap((one) => [...one.y, ...(one.low ?? []), ...(one.high ?? [])]).concat(block.lines_at);
  const bars = block.series.some((one) => one.look === "bars");
  const x = range(block.diagonal ? [...xs, ...ys] : xs, block.x_ticks.length || bars ? 0.6 : 0, block.logarithmic);
  const y = range(bars ? [...ys, 0] : block.diagonal ? [...xs, ...ys] : ys, 0, false);
  const place = (value) => (block.logarithmic ? Math.log10(Math.max(value, 1e-9)) : value);
  const [left, right] = [place(x.low), place(x.high)];
  const width = WIDE - ROOM.left - ROOM.right;
  const height = HIGH - ROOM.top - ROOM.bottom;
  return {
    x,
    y,
    upright: uprightOf(block),
    across: (value) => ROOM.left + (width * (place(value) - left)) / (right - left || 1),
    up: (value) => ROOM.top + height - (height * (value - y.low)) / (y.high - y.low || 1),
  };
}

/** How much higher the picture is for words that stand upright; 0 where they stand side by side. */
function uprightOf(block) {
  const words = block.x_ticks.map(([, word]) => word.length);
  return words.reduce((sum, length) => sum + length + 3, 0) <= SIDE_BY_SIDE ? 0 : 6.4 * Math.min(14, Math.max(...words)) - 8;
}

/** The smallest and the largest, with room around. */
function range(values, around, logarithmic) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (logarithmic) return { low: low / 1.15, high: high * 1.15 };
  const room = around || 0.06 * (high - low || Math.abs(high) || 1);
  return { low: low - room, high: high + room };
}

/** Round numbers across a range. */
function ticks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? rough;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) {
    found.push(Math.abs(value) < step / 1e6 ? 0 : Number(value.toPrecision(6)));
  }
  return found;
}

/** Axes with their names, grid lines, dashed lines. */
function drawFrame(picture, block, axes) {
  const [bottom, right] = [HIGH - ROOM.bottom, WIDE - ROOM.right];
  for (const value of ticks(axes.y.low, axes.y.high)) {
    picture.append(line(ROOM.left, axes.up(value), right, axes.up(value), "gridline"));
    picture.append(label(ROOM.left - 6, axes.up(value) + 4, tick(value), "end"));
  }
  const across = block.x_ticks.length ? block.x_ticks : tickNames(block, axes);
  for (const [value, word] of across) {
    picture.append(line(axes.across(value), bottom, axes.across(value), bottom + 4, "axis"));
    picture.append(axes.upright ? upright(axes.across(value), bottom, word) : label(axes.across(value), bottom + 17, word, "middle"));
  }
  for (const value of block.lines_at) picture.append(line(ROOM.left, axes.up(value), right, axes.up(value), "guide"));
  picture.append(line(ROOM.left, bottom, right, bottom, "axis"), line(ROOM.left, ROOM.top, ROOM.left, bottom, "axis"));
  picture.append(label((ROOM.left + right) / 2, HIGH + axes.upright - 8, block.x_name, "middle"));
  const turned = label(0, 0, block.y_name, "middle");
  turned.setAttribute("transform", `translate(14 ${(ROOM.top + bottom) / 2}) rotate(-90)`);
  picture.append(turned);
}

/** A round number. */
function tick(value) {
  return Number.isInteger(value) ? grouped(value) : String(value).replace("-", "−");
}

/** Ticks of a numbered x axis: powers of ten, and in between where they are few. */
function tickNames(block, axes) {
  if (!block.logarithmic) return ticks(axes.x.low, axes.x.high).map((value) => [value, tick(value)]);
  const found = [];
  for (let power = Math.ceil(Math.log10(axes.x.low)); 10 ** power <= axes.x.high; power++) found.push(10 ** power);
  return found.map((value) => [value, value >= 1 ? grouped(value) : String(value)]);
}

function line(x1, y1, x2, y2, kind) {
  return shape("line", { x1, y1, x2, y2, class: kind });
}

function label(x, y, text, anchor) {
  return shape("text", { x, y, "text-anchor": anchor }, text);
}

/** A word below the axis that is read from below. */
function upright(x, bottom, word) {
  const own = shape("text", { "text-anchor": "end", class: "upright" }, clipped(word, 14));
  own.setAttribute("transform", `translate(${x + 4} ${bottom + 8}) rotate(-90)`);
  return own;
}

/** The class of a series' colour. */
function inked(one) {
  return `ink-${one.colour}`;
}

/** The stretch between two lines. */
function drawBand(picture, one, axes) {
  const upper = one.x.map((x, i) => `${axes.across(x)},${axes.up(one.high[i])}`);
  const lower = one.x.map((x, i) => `${axes.across(x)},${axes.up(one.low[i])}`).reverse();
  picture.append(shape("polygon", { points: [...upper, ...lower].join(" "), class: `band ${inked(one)}` }));
}

/** Lines, points with their intervals, bars. */
function drawSeries(picture, one, axes) {
  if (one.look === "line") {
    const points = one.x.map((x, i) => `${axes.across(x)},${axes.up(one.y[i])}`).join(" ");
    picture.append(shape("polyline", { points, class: `line ${inked(one)}` }));
  }
  if (one.look === "band") return;
  one.x.forEach((x, i) => {
    const [across, told] = [axes.across(x), `${one.names?.[i] ?? one.name}: ${plain(one.y[i])}`];
    if (one.look === "bars") {
      const [top, foot] = [axes.up(Math.max(0, one.y[i])), axes.up(Math.min(0, one.y[i]))];
      const bar = { x: across - 6, y: top, width: 12, height: Math.max(1, foot - top), class: `bar ${inked(one)}` };
      picture.append(shape("rect", bar, shape("title", {}, told)));
      return;
    }
    if (one.low) picture.append(line(across, axes.up(one.low[i]), across, axes.up(one.high[i]), `reach ${inked(one)}`));
    const small = one.look === "points" && one.x.length > 24;
    const dot = { cx: across, cy: axes.up(one.y[i]), r: small ? 2.2 : 4, class: `dot ${inked(one)}` };
    picture.append(shape("circle", dot, shape("title", {}, told)));
  });
}

/** A line of the legend. */
function legendEntry(one) {
  const mark = shape("svg", { viewBox: "0 0 18 10", class: "mark", "aria-hidden": "true" });
  if (one.look === "band" || one.look === "bars") {
    mark.append(shape("rect", { x: 1, y: 1, width: 16, height: 8, class: `${one.look === "band" ? "band" : "bar"} ${inked(one)}` }));
  } else {
    if (one.look === "line") mark.append(line(0, 5, 18, 5, `line ${inked(one)}`));
    mark.append(shape("circle", { cx: 9, cy: 5, r: 3.5, class: `dot ${inked(one)}` }));
  }
  return make("li", {}, mark, one.name);
}

/** The numbers of a chart. */
function chartTable(block) {
  const names = new Map(block.x_ticks.map(([value, word]) => [value, word]));
  const rows = block.series.flatMap((one) =>
    one.x.map((x, i) => [one.names?.[i] ?? one.name, names.get(x) ?? x, one.look === "band" ? null : one.y[i],
      one.low ? one.low[i] : null, one.high ? one.high[i] : null]));
  const header = ["what", block.x_name, block.y_name, "low", "high"];
  return grid({ header, rows, caption: "The numbers", folded: true });
}
