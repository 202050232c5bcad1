// The same circuit as tables: every node and every edge with all that is known of it in a row.

/**
 * Tables of what is shown just now.
 * @param {Object} graph
 * @param {State} state
 * @param {(chosen: ?{kind: string, place: number}) => void} choose
 */
function graphTables(graph, state, choose) {
  const live = liveNodes(graph, state);
  const nodes = [...graph.nodes.keys()].filter((place) => live.has(place) && graph.nodes[place].kind !== "group" && matches(graph.nodes[place], state.query));
  const named = (place) => matches(graph.nodes[place], state.query);
  const edges = [...graph.edges.keys()].filter((place) => isKept(place, state)
    && (!state.query || named(graph.edges[place].from) || graph.edges[place].to.some(named)));
  return [
    wholeTable(`${counted(nodes.length, "node")}`, ["node", "what", "role", "at", "score", "without it", "raises", "lowers", "edges in", "edges out", "evidence"], nodes.map((place) => nodeRow(graph, place, choose))),
    wholeTable(`${counted(edges.length, "edge")}, the strongest first`, ["edge", "from", "to", "slot", "at", "score", "evidence"], edges.map((place) => edgeRow(graph, place, choose))),
  ];
}

function wholeTable(caption, header, rows) {
  const head = make("tr", {}, header.map((name) => make("th", { scope: "col" }, name)));
  return make("figure", { class: "grid" }, make("figcaption", {}, caption),
    scrolling(make("table", {}, make("thead", {}, head), make("tbody", {}, rows)), caption));
}

/** Evidence in one line. */
function evidenceLine(evidence) {
  const rows = [];
  if (evidence) flattened(evidence, [], rows);
  return rows.map(([name, value]) => `${name} ${value}`).join("; ");
}

function nodeRow(graph, place, choose) {
  const node = graph.nodes[place];
  const tokens = (written) => (written ?? []).map(([token, value]) => `${visible(token)} ${signed(value)}`).join(", ");
  const cells = [KINDS[node.kind], node.role ?? "", (node.positions ?? []).join(", "), node.score === undefined ? "" : signed(node.score),
    node.need ? needOf(node.need) : "", tokens(node.writes?.up), tokens(node.writes?.down), grouped(node.ins.length), grouped(node.outs.length), evidenceLine(node.evidence)];
  return make("tr", {}, make("th", { scope: "row" }, nodeButton(graph, place, choose)), cells.map((text) => make("td", {}, text)));
}

function edgeRow(graph, place, choose) {
  const edge = graph.edges[place];
  const cells = [graph.nodes[edge.from].name, edge.to.map((end) => graph.nodes[end].name).join(", "), edge.slot ?? "",
    (edge.positions ?? []).join(", "), edge.score === undefined ? "" : within(edge.score, edge.interval), evidenceLine(edge.evidence)];
  return make("tr", {}, make("th", { scope: "row" }, edgeButton(graph, place, choose)), cells.map((text) => make("td", {}, text)));
}
