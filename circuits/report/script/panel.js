// The panel: all that is known of the node or the edge that was chosen.

/**
 * Fills the panel.
 * @param {Object} graph
 * @param {State} state
 * @param {(chosen: ?{kind: string, place: number}) => void} choose
 */
function panelOf(graph, state, choose) {
  const chosen = state.selected;
  if (!chosen) return nothingChosen(graph, choose);
  const close = button("×", () => choose(null), { class: "close", "aria-label": "close" });
  return [close, ...(chosen.kind === "node" ? nodePanel(graph, chosen.place, choose) : edgePanel(graph, chosen.place, choose))];
}

/** What stands in the panel before anything is chosen: the strongest edges. */
function nothingChosen(graph, choose) {
  const strongest = graph.edges.slice(0, 14).map((edge, place) => make("tr", {}, make("th", { scope: "row" }, edgeButton(graph, place, choose)),
    make("td", { class: "number" }, edge.score === undefined ? "" : signed(edge.score))));
  const head = make("tr", {}, make("th", { scope: "col" }, "strongest edges"), make("th", { scope: "col", class: "number" }, "score"));
  return [make("p", { class: "note" }, "Choose a node or an edge to see what is known of it."),
    strongest.length && make("table", {}, make("thead", {}, head), make("tbody", {}, strongest))].filter(Boolean);
}

/** A button that chooses a node. */
function nodeButton(graph, place, choose) {
  return button(graph.nodes[place].name, () => choose({ kind: "node", place }), { class: "link" });
}

/** A button that chooses an edge. */
function edgeButton(graph, place, choose) {
  return button(graph.edges[place].name, () => choose({ kind: "edge", place }), { class: "link" });
}

/** What is known of a node. */
function nodePanel(graph, place, choose) {
  const node = graph.nodes[place];
  const rows = [];
  if (node.score !== undefined) rows.push(["score", signed(node.score)]);
  if (node.positions) rows.push(["at", node.positions.join(", ")]);
  if (node.need) rows.push(["faithfulness changes by", `${needOf(node.need)} when it goes`]);
  const parts = [
    make("h3", {}, node.name),
    make("p", { class: "kind" }, [KINDS[node.kind], node.layer === undefined ? null : `layer ${node.layer}`, node.role].filter(Boolean).join(" · ")),
    rows.length && facts({ rows, copied: "" }),
    graph.prompts.length && (node.attention || node.activations) && tokenView(graph, node),
    node.writes && writesOf(node.writes),
    node.triggers && triggersOf(node.triggers),
    node.measures && measuresOf(node.measures),
    node.evidence && evidenceOf(node.evidence),
    node.members && membersOf(graph, node, choose),
    edgeList(graph, node.ins, "Edges in", (edge) => [edge.from], choose),
    edgeList(graph, node.outs, "Edges out", (edge) => edge.to, choose),
  ];
  return parts.filter(Boolean);
}

/** What becomes of faithfulness when a node goes, and which others were gone already. */
function needOf(need) {
  return signed(need.change) + (need.without.length ? ` (without ${need.without.join(", ")})` : "");
}

/** What is known of an edge. */
function edgePanel(graph, place, choose) {
  const edge = graph.edges[place];
  const effect = effectOf(edge, graph);
  const does = effect === 0 || !graph.supports ? "" : effect > 0 ? "supports the metric" : "opposes the metric";
  const rows = [["from", nodeButton(graph, edge.from, choose)]];
  rows.push(["to", make("span", {}, edge.to.map((end) => nodeButton(graph, end, choose)))]);
  if (edge.slot) rows.push(["read as", { q: "queries", k: "keys", v: "values" }[edge.slot]]);
  rows.push(["score", edge.score === undefined ? "none" : within(edge.score, edge.interval)]);
  if (edge.score !== undefined) rows.push(["rank", `${place + 1} of ${graph.edges.length} by |score|`]);
  if (edge.positions) rows.push(["at", edge.positions.join(", ")]);
  return [
    make("h3", {}, edge.name),
    make("p", { class: "kind" }, ["an edge", does].filter(Boolean).join(" · ")),
    facts({ rows, copied: "" }),
    make("p", { class: "note" }, graph.words.score, edge.interval ? " In brackets: 95 % interval over prompts." : ""),
    edge.byPrompt ? promptsOf(graph, edge) : make("p", { class: "note" }, "On which prompts it matters was not measured."),
    edge.evidence && evidenceOf(edge.evidence),
  ].filter(Boolean);
}

/** On which prompts an edge matters: the largest first. */
function promptsOf(graph, edge) {
  const largest = Math.max(1e-12, ...edge.byPrompt.map(Math.abs));
  const order = [...edge.byPrompt.keys()].sort((a, b) => Math.abs(edge.byPrompt[b]) - Math.abs(edge.byPrompt[a]));
  const rows = order.map((prompt) => {
    const value = make("td", { class: "number" }, signed(edge.byPrompt[prompt]));
    tinted(value, edge.byPrompt[prompt], largest);
    return make("tr", {}, value, make("th", { scope: "row", class: "said-whole" }, clipped(graph.prompts[prompt].tokens.join(""), 160)));
  });
  return make("section", {}, make("h4", {}, "On which prompts it matters"),
    scrolling(make("table", {}, make("tbody", {}, rows)), "prompts"), make("p", { class: "note" }, graph.words.byPrompt ?? ""));
}

/** Tokens that a node raises and lowers. */
function writesOf(writes) {
  const column = (name, tokens) => make("div", {}, make("h5", {}, name),
    make("ol", { class: "tokenlist" }, tokens.map(([token, value]) => make("li", {}, make("span", { class: "token" }, visible(token)), ` ${signed(value)}`))));
  return make("section", {}, make("h4", {}, "What it writes"), make("div", { class: "pair" }, column("raises", writes.up), column("lowers", writes.down)),
    make("p", { class: "note" }, writes.about));
}

/** Texts at which a neuron is most active. */
function triggersOf(triggers) {
  const rows = triggers.rows.map(({ tokens, at, activation }) => {
    const words = tokens.map((token, place) => make("span", { class: place === at ? "token query" : "token" }, visible(token)));
    return make("li", {}, `${signed(activation)} `, words);
  });
  return make("section", {}, make("h4", {}, "Its triggers"), make("ol", { class: "triggers" }, rows), make("p", { class: "note" }, triggers.about));
}

/** Numbers that were measured of it, by name. */
function measuresOf(measures) {
  const rows = Object.entries(measures).map(([name, value]) => [name.replace(/_/g, " "), plain(value)]);
  return make("section", {}, make("h4", {}, "Head scores"), facts({ rows, copied: "" }));
}

/** Evidence, whatever its shape: names joined, effects with their intervals. */
function evidenceOf(evidence) {
  const rows = [];
  flattened(evidence, [], rows);
  return make("section", {}, make("h4", {}, "Evidence"), facts({ rows, copied: "" }),
    make("p", { class: "note" }, "In brackets: 95 % intervals."));
}

/** Names and values of plain data, those of objects inside behind a point; an effect with its interval is one value. */
function flattened(value, names, rows) {
  const name = names.join(" · ").replace(/_/g, " ") || "value";
  if (value === null) return;
  if (typeof value === "object" && !Array.isArray(value)) {
    if ("effect" in value && "low" in value && "high" in value && typeof value.effect === "number") {
      const rest = Object.entries(value).filter(([key]) => !["effect", "low", "high"].includes(key));
      const more = rest.map(([key, one]) => `${key.replace(/_/g, " ")} ${typeof one === "number" ? plain(one) : one}`).join(", ");
      rows.push([name, within(value.effect, [value.low, value.high]) + (more ? ` (${more})` : "")]);
      return;
    }
    for (const [key, one] of Object.entries(value)) flattened(one, [...names, key], rows);
  } else if (Array.isArray(value)) {
    if (value.length) rows.push([name, value.map((one) => (typeof one === "number" ? plain(one) : typeof one === "object" ? JSON.stringify(one) : String(one))).join(", ")]);
  } else rows.push([name, typeof value === "number" ? plain(value) : String(value)]);
}

/** The neurons of a group. */
function membersOf(graph, node, choose) {
  return make("section", {}, make("h4", {}, counted(node.members.length, "neuron")),
    make("p", { class: "names" }, node.members.map((place) => nodeButton(graph, place, choose))));
}

/** Edges of a node, the strongest first; `other`: the nodes at their other end, several where heads share keys. */
function edgeList(graph, places, title, other, choose) {
  if (!places.length) return null;
  const most = 200;
  const rows = places.slice(0, most).map((place) => {
    const edge = graph.edges[place];
    const score = edge.score === undefined ? "" : within(edge.score, edge.interval);
    const names = other(edge).flatMap((end, at) => [at ? " " : "", nodeButton(graph, end, choose)]);
    return make("tr", {}, make("th", { scope: "row" }, names),
      make("td", {}, edge.slot ?? ""), make("td", { class: "number" }, edgeScore(graph, place, score, choose)));
  });
  const head = make("tr", {}, ["node", "slot", "score"].map((name) => make("th", { scope: "col" }, name)));
  const more = places.length > most && make("p", { class: "note" }, `${grouped(places.length - most)} more: see the table.`);
  return make("details", { open: places.length <= 12 }, make("summary", {}, `${title} (${grouped(places.length)})`),
    scrolling(make("table", {}, make("thead", {}, head), make("tbody", {}, rows)), title), more);
}

/** A score that chooses its edge. */
function edgeScore(graph, place, score, choose) {
  return button(score || "open", () => choose({ kind: "edge", place }), { class: "link", "aria-label": `edge ${graph.edges[place].name} ${score}` });
}
