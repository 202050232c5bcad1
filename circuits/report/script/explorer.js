// A circuit to walk through: the tools, the graph or its tables, and the panel beside.

/**
 * The whole of it.
 * @param {Object} block
 */
function explorer(block) {
  const graph = graphOf(block);
  const state = firstState(graph);
  const told = make("p", { class: "told", "aria-live": "polite" });
  const sized = make("p", { class: "sized", "aria-live": "polite" });
  const panel = make("aside", { class: "panel", "aria-label": "details" });
  const tables = make("div", { class: "tables", hidden: true });
  const root = make("div", { class: "explorer" });

  const acts = {
    choose(chosen) {
      state.selected = chosen;
      panel.replaceChildren(...panelOf(graph, state, acts.choose));
      panel.scrollTop = 0;
      if (chosen?.kind === "node") {
        state.focus = chosen.place;
        view.reveal(chosen.place);
      }
      view.refresh();
    },
    fold(layer) {
      if (!state.folded.delete(layer)) state.folded.add(layer);
      refold();
    },
    foldAll(folded) {
      state.folded = new Set(folded ? graph.strengths.keys() : []);
      refold();
    },
    open(group) {
      if (!state.closed.delete(group)) state.closed.add(group);
      refold();
    },
    told(text) {
      told.textContent = text;
    },
  };
  const view = graphView(graph, state, acts);

  function refold() {
    view.rearrange();
    told.textContent = state.folded.size ? `${counted(state.folded.size, "layer")} folded` : "all layers unfolded";
    layerList();
  }

  function resized() {
    sized.replaceChildren(make("strong", {}, remaining(graph, state)), " ", keeps(graph, state));
    if (!tables.hidden) tables.replaceChildren(...graphTables(graph, state, acts.choose));
    view.refresh();
  }

  const slider = make("input", { type: "range", min: 0, max: 1000, value: 1000, "aria-label": "edges shown, the strongest first" });
  slider.addEventListener("input", () => {
    state.kept = edgesAt(Number(slider.value) / 1000, graph.edges.length);
    slider.setAttribute("aria-valuetext", remaining(graph, state));
    resized();
  });
  const search = make("input", { type: "search", placeholder: "a node or a role", "aria-label": "search" });
  search.addEventListener("input", () => {
    state.query = search.value.trim();
    const found = graph.nodes.filter((node) => matches(node, state.query)).length;
    told.textContent = state.query ? `${counted(found, "node")} found` : "";
    resized();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const first = graph.nodes.findIndex((node) => matches(node, state.query));
    if (first >= 0) acts.choose({ kind: "node", place: first });
  });
  const layers = make("details", { class: "layers" });
  function layerList() {
    const names = [...graph.strengths.keys()].sort((a, b) => a - b).map((layer) =>
      button(`layer ${layer}`, () => acts.fold(layer), { class: "chip", "aria-pressed": String(!state.folded.has(layer)) }));
    const groups = graph.nodes.map((node, place) => (node.kind !== "group" ? null
      : button(`neurons of ${node.name}`, () => acts.open(place), { class: "chip", "aria-pressed": String(!state.closed.has(place)) })));
    layers.replaceChildren(make("summary", {}, "Layers"), make("p", {}, button("fold all", () => acts.foldAll(true), { class: "chip" }),
      button("unfold all", () => acts.foldAll(false), { class: "chip" }), names, groups.filter(Boolean)));
  }
  const asTable = button("Table", () => {
    tables.hidden = !tables.hidden;
    view.stage.hidden = !tables.hidden;
    asTable.setAttribute("aria-pressed", String(!tables.hidden));
    resized();
  }, { "aria-pressed": "false", class: "as-table" });
  const zooms = make("span", { class: "zooms" }, button("−", () => view.zoom(0.8), { "aria-label": "zoom out" }),
    button("+", () => view.zoom(1.25), { "aria-label": "zoom in" }), button("Fit", () => view.fit()), asTable);
  const tools = make("div", { class: "tools" }, make("label", { class: "edges" }, make("span", {}, "edges"), slider), search, zooms);

  root.append(tools, sized, make("div", { class: "beside" }, make("div", { class: "drawn" }, view.stage, tables, told, legendOf(graph)), panel),
    layers, ...missingOf(graph));
  layerList();
  acts.choose(null);
  resized();
  root.circuit = { graph, state, view, choose: acts.choose };
  return root;
}

/** How many edges a place of the slider stands for: finer where they are few. */
function edgesAt(share, whole) {
  if (share >= 1 || whole <= 1) return share > 0 ? whole : 0;
  return Math.round(share * share * whole);
}

/** What colours and dashes mean. */
function legendOf(graph) {
  const entry = (kind, text) => make("li", {}, shape("svg", { viewBox: "0 0 26 8", class: "mark", "aria-hidden": "true" }, line(1, 4, 25, 4, kind)), text);
  const known = graph.supports !== 0;
  const { roles } = graph;
  const there = (sign) => graph.edges.some((edge) => effectOf(edge, graph) === sign);
  const entries = [
    there(1) && entry("edge-positive", known ? "supports the metric" : "positive score"),
    there(-1) && entry("edge-negative", known ? "opposes it (dashed)" : "negative score (dashed)"),
    ...[...roles].slice(0, 7).map(([role, place]) => make("li", {}, make("span", { class: `swatch role-${place}` }), clipped(role, 40))),
  ];
  return make("div", { class: "about" }, make("ul", { class: "legend" }, entries),
    make("p", { class: "note" }, `${graph.words.score} Width: |score|. Of ${graph.words.whole} in the model. Drag to move, `,
      "click to open, Ctrl and wheel to zoom (with the graph chosen, the wheel alone); every edge runs upwards."));
}

/** What there is not. */
function missingOf(graph) {
  return graph.missing.length ? [make("div", { class: "words note" }, graph.missing.map((said) => make("p", {}, said)))] : [];
}
