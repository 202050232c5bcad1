// Nodes that lead to the circuits of the page that they are in.

/**
 * A table: a node a row, and a button for each circuit, which shows the node there.
 * @param {{header: [string, string], rows: [string, string[]][], caption: string, folded: boolean}} block
 */
function links(block) {
  const head = make("tr", {}, block.header.map((name) => make("th", { scope: "col" }, name)));
  const rows = block.rows.map(([node, names]) => make("tr", {}, make("th", { scope: "row" }, node),
    make("td", {}, make("span", { class: "names" }, names.map((name) => linkTo(node, name))))));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, rows));
  const shown = scrolling(table, block.caption);
  return block.folded ? make("details", { class: "grid" }, make("summary", {}, block.caption), shown)
    : make("figure", { class: "grid" }, make("figcaption", {}, block.caption), shown);
}

/** The name of a circuit, which shows a node of it; where the page has no such circuit, the name alone. */
function linkTo(node, name) {
  const own = make("span", {}, name);
  requestAnimationFrame(() => { // circuits stand further below: they are made after this
    const root = circuitNamed(name);
    const place = root ? root.circuit.graph.nodes.findIndex((one) => one.name === node) : -1;
    if (place >= 0) own.replaceChildren(button(name, () => showNode(root, place), { class: "link", "aria-label": `${node} in ${name}` }));
  });
  return own;
}

/** The circuit of this name on the page. */
function circuitNamed(name) {
  return [...document.querySelectorAll(".explorer")].find((root) => root.circuit.graph.name === name);
}

/** Brings a circuit into view, with a node of it chosen and its panel where the keyboard is. */
function showNode(root, place) {
  root.circuit.choose({ kind: "node", place });
  root.closest(".part").scrollIntoView();
  root.querySelector(".panel .close").focus({ preventScroll: true });
}
