// Tables whose cells are coloured by their numbers.

const POSITIVE = [0, 114, 178];
const NEGATIVE = [213, 94, 0];

/**
 * Colours a cell: the more of the colour, the larger the number is beside the largest.
 * @param {HTMLElement} cell
 * @param {number} value
 * @param {number} largest
 */
function tinted(cell, value, largest) {
  const share = largest > 0 ? Math.min(1, Math.abs(value) / largest) : 0;
  const [red, green, blue] = value < 0 ? NEGATIVE : POSITIVE;
  cell.style.backgroundColor = `rgba(${red}, ${green}, ${blue}, ${(0.92 * share).toFixed(3)})`;
  if (share > 0.62) cell.style.color = "#ffffff";
}

/**
 * A heatmap: a table, so that it can be read without colours.
 * @param {{rows: string[], columns: string[], values: (?number)[][], caption: string, row_name: string, column_name: string,
 *   cells: string[][], marked: number[]}} block
 */
function heatmap(block) {
  const largest = Math.max(1e-12, ...block.values.flat().map((value) => Math.abs(value ?? 0)));
  const corner = [block.row_name, block.column_name].filter(Boolean).join(" \\ ");
  const head = make("tr", {}, make("th", {}, corner), block.columns.map((name) => make("th", { scope: "col" }, visible(name))));
  const body = block.values.map((row, r) => {
    const marked = block.marked.includes(r);
    const cells = row.map((value, c) => {
      const text = block.cells.length ? visible(block.cells[r][c]) : value === null ? "" : short(value);
      const told = value === null ? "nothing" : `${block.rows[r]}, ${block.columns[c]}: ${signed(value)}`;
      const cell = make("td", { title: told }, text);
      if (value !== null) tinted(cell, value, largest);
      return cell;
    });
    return make("tr", {}, make("th", { scope: "row", class: marked && "marked" }, visible(block.rows[r])), cells);
  });
  const table = make("table", { class: block.cells.length ? "heat worded" : "heat" }, make("thead", {}, head), make("tbody", {}, body));
  const signs = block.values.flat().some((value) => value !== null && value < 0);
  const scale = signs ? `colours from −${plain(largest)} (vermilion) by 0 to ${plain(largest)} (blue)` : `colours from 0 to ${plain(largest)} (blue)`;
  return make("figure", { class: "grid" }, make("figcaption", {}, block.caption), scrolling(table, block.caption),
    make("p", { class: "note" }, scale));
}

/** Two digits, without the zero in front of the point. */
function short(value) {
  const text = Math.abs(value).toFixed(2);
  const sign = value < 0 && Number(text) !== 0 ? "−" : "";
  return sign + (text.startsWith("0.") && Number(text) !== 0 ? text.slice(1) : text);
}
