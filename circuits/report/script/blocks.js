// Blocks that are words and tables.

/**
 * Words, a paragraph a line.
 * @param {{lines: string[], tone: string}} block
 */
function paragraphs(block) {
  const own = { class: `words ${block.tone}`, ...(block.tone === "warning" ? { role: "note" } : {}) };
  return make("div", own, block.lines.map((line) => make("p", {}, line)));
}

/**
 * Names and values, with a button that copies them where there is something to copy.
 * @param {{rows: [string, string][], copied: string}} block
 */
function facts(block) {
  const list = make("dl", { class: "facts" });
  for (const [name, value] of block.rows) list.append(make("dt", {}, name), make("dd", {}, value));
  if (!block.copied) return list;
  const said = make("span", { class: "said", role: "status" });
  const copy = button("Copy", () => copyText(block.copied, said), { class: "copy" });
  return make("div", {}, list, make("p", { class: "row" }, copy, said));
}

/**
 * Copies a text, and says whether it did.
 * @param {string} text
 * @param {Element} said
 */
function copyText(text, said) {
  const done = () => (said.textContent = "copied");
  if (navigator.clipboard) {
    navigator.clipboard.writeText(text).then(done, () => copySelected(text, said));
  } else copySelected(text, said);
}

/** The same by way of a selection, where a page may not write to the clipboard itself. */
function copySelected(text, said) {
  const field = make("textarea", { class: "probe", readonly: true }, text);
  document.body.append(field);
  field.select();
  said.textContent = document.execCommand("copy") ? "copied" : "cannot copy here: select the lines above";
  field.remove();
}

/**
 * A table.
 * @param {{header: string[], rows: (string|number|null)[][], caption: string, folded: boolean}} block
 */
function grid(block) {
  const numeric = block.header.map((_, column) => block.rows.some((row) => typeof row[column] === "number"));
  const head = make("tr", {}, block.header.map((name, i) => make("th", { scope: "col", class: numeric[i] && "number" }, name)));
  const body = block.rows.map((row) => make("tr", {}, row.map((cell, i) => gridCell(cell, i === 0, numeric[i]))));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, body));
  if (block.folded) return make("details", { class: "grid" }, make("summary", {}, block.caption), scrolling(table, block.caption));
  return make("figure", { class: "grid" }, block.caption && make("figcaption", {}, block.caption), scrolling(table, block.caption));
}

/** Characters from which on a cell is long. */
const LONG = 32;

/** A cell; the first of a row names it. */
function gridCell(cell, first, numeric) {
  const text = cell === null ? "" : typeof cell === "number" ? plain(cell) : cell;
  // What is long is wide too: on a narrow screen the table scrolls sideways, and its rows stay low.
  const kind = numeric ? "number" : text.length > LONG ? "long" : "short";
  return first && !numeric ? make("th", { scope: "row", class: kind }, text) : make("td", { class: kind }, text);
}

/**
 * Something wide in a box that scrolls by itself, also by keyboard.
 * @param {Element} inside
 * @param {string} name
 */
function scrolling(inside, name) {
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name || "table" }, inside);
}
