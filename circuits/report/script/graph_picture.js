// The picture of a circuit on a canvas.

const INKS = ["ink", "faint", "surface", "rowed", "boxed", "positive", "negative", "unscored", "focus", "strip",
  "role-0", "role-1", "role-2", "role-3", "role-4", "role-5", "role-6"];

/**
 * @typedef {{x: number, y: number, scale: number, width: number, height: number, dense: number}} View Where the drawing stands
 *   on the paper, how large, the size of the paper, and how many dots a pixel has.
 */

/**
 * Paints what is shown.
 * @param {CanvasRenderingContext2D} pen
 * @param {Object} graph
 * @param {State} state
 * @param {Arranged} arranged
 * @param {View} view
 * @param {Record<string, string>} ink
 * @param {{focused: boolean, quick: boolean}} how whether the keyboard is here; whether something moves, so that dashes and
 *   arrowheads, which take most of the time, wait until it stands still
 */
function paint(pen, graph, state, arranged, view, ink, how) {
  paintGround(pen, arranged, view, ink);
  paintGraph(pen, graph, state, arranged, view, ink, how);
  paintLabels(pen, arranged, view, ink);
}

/** The paper and the pale bands behind rows. */
function paintGround(pen, arranged, view, ink) {
  pen.setTransform(view.dense, 0, 0, view.dense, 0, 0);
  pen.fillStyle = ink.surface;
  pen.fillRect(0, 0, view.width, view.height);
  paintRows(pen, arranged, view, ink);
}

/** Edges and nodes. */
function paintGraph(pen, graph, state, arranged, view, ink, how) {
  pen.setTransform(view.dense * view.scale, 0, 0, view.dense * view.scale, view.dense * view.x, view.dense * view.y);
  const near = nearOf(graph, state);
  paintEdges(pen, graph, state, arranged, ink, near, false, how.quick);
  if (near) paintEdges(pen, graph, state, arranged, ink, near, true, false);
  paintNodes(pen, graph, state, arranged, view, ink, near);
  if (how.focused) paintFocus(pen, graph, state, arranged, ink);
}

/** The edges and nodes that belong to what is selected or pointed at, or that a search finds; null: nothing is set off. */
function nearOf(graph, state) {
  const chosen = state.hovered ?? state.selected;
  if (!chosen && !state.query) return null;
  if (!chosen) {
    const nodes = new Set(graph.nodes.map((node, place) => (matches(node, state.query) ? place : -1)));
    return { edges: new Set(), nodes };
  }
  const edges = new Set(chosen.kind === "edge" ? [chosen.place] : [...graph.nodes[chosen.place].ins, ...graph.nodes[chosen.place].outs]);
  const nodes = new Set(chosen.kind === "node" ? [chosen.place, ...(graph.nodes[chosen.place].members ?? [])] : []);
  for (const place of edges) {
    if (!isKept(place, state)) continue;
    for (const end of [graph.edges[place].from, ...graph.edges[place].to]) {
      nodes.add(end);
      if (graph.nodes[end].group !== undefined) nodes.add(graph.nodes[end].group);
    }
  }
  return { edges, nodes };
}

/** Pale bands behind rows. */
function paintRows(pen, arranged, view, ink) {
  for (const row of arranged.rows) {
    const y = view.y + view.scale * row.y;
    const high = view.scale * (row.height + (row.strip ? 0 : 10));
    if (y + high < 0 || y - high > view.height) continue;
    pen.fillStyle = row.strip ? ink.strip : ink.rowed;
    pen.fillRect(0, y - high / 2, view.width, high);
  }
}

/** What rows are called, at the left edge of the view. */
function paintLabels(pen, arranged, view, ink) {
  pen.setTransform(view.dense, 0, 0, view.dense, 0, 0);
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  let last = Infinity;
  for (const row of [...arranged.rows].reverse()) {
    const y = view.y + view.scale * row.y;
    if (y < 6 || y > view.height - 4 || last - y < 12 || !row.label) continue;
    last = y;
    const text = view.width < 560 ? briefly(row) : row.strip ? `▸ ${row.label} (${row.nodes.length})` : row.layer === null ? row.label : `▾ ${row.label}`;
    const wide = pen.measureText(text).width;
    pen.globalAlpha = 0.78;
    pen.fillStyle = ink.surface;
    pen.fillRect(2, y - 8, wide + 8, 16);
    pen.globalAlpha = 1;
    pen.fillStyle = ink.faint;
    pen.fillText(text, 6, y);
  }
}

/** What a row is called where there is little room. */
function briefly(row) {
  return row.layer === null ? row.label.slice(0, 3) : `${row.strip ? "▸" : "▾"}${row.layer}`;
}

/** How wide an edge is drawn. */
function widthOf(edge, graph) {
  return edge.score === undefined || !graph.largest ? 0.8 : 0.7 + 3.6 * (Math.abs(edge.score) / graph.largest) ** 0.7;
}

/** The edges, the weakest first; `set`: those that are set off, else the others; `quick`: without dashes and arrowheads. */
function paintEdges(pen, graph, state, arranged, ink, near, set, quick) {
  const count = state.kept;
  const usual = count <= 60 ? 0.85 : count <= 250 ? 0.6 : 0.42;
  pen.globalAlpha = set ? 0.95 : near ? 0.1 : usual;
  for (let place = arranged.curves.length - 1; place >= 0; place--) {
    const curve = arranged.curves[place];
    if (curve.edge >= count) continue;
    if (near && near.edges.has(curve.edge) !== set) continue;
    const edge = graph.edges[curve.edge];
    const effect = effectOf(edge, graph);
    pen.strokeStyle = pen.fillStyle = effect > 0 ? ink.positive : effect < 0 ? ink.negative : ink.unscored;
    pen.lineWidth = widthOf(edge, graph);
    pen.setLineDash(effect < 0 && !quick ? [7, 4] : []);
    pen.stroke(curve.path);
    if (curve.arrow && !quick) pen.fill(curve.arrow);
  }
  pen.setLineDash([]);
  pen.globalAlpha = 1;
}

/** Boxes with names, dots in folded rows. */
function paintNodes(pen, graph, state, arranged, view, ink, near) {
  const { roles } = graph;
  const live = liveNodes(graph, state);
  for (const row of arranged.rows) {
    const screen = view.y + view.scale * row.y;
    if (screen < -60 * view.scale || screen > view.height + 60 * view.scale) continue;
    for (const place of row.nodes) {
      const node = graph.nodes[place];
      const { x, y } = arranged.at[place];
      const dim = near ? !near.nodes.has(place) : !live.has(place);
      const edge = node.role === undefined ? ink.faint : ink[`role-${roles.get(node.role)}`];
      pen.globalAlpha = dim ? 0.35 : 1;
      if (row.strip) paintDot(pen, x, y, edge, ink, state.selected?.kind === "node" && state.selected.place === place);
      else paintBox(pen, graph, node, place, x, y, edge, view, ink, state);
    }
  }
  pen.globalAlpha = 1;
}

/** The nodes of which an edge is shown. */
function liveNodes(graph, state) {
  const live = new Set();
  for (let place = 0; place < state.kept; place++) {
    for (const end of [graph.edges[place].from, ...graph.edges[place].to]) {
      live.add(end);
      if (graph.nodes[end].group !== undefined) live.add(graph.nodes[end].group);
    }
  }
  if (!graph.edges.length) graph.nodes.forEach((_, place) => live.add(place));
  return live;
}

function paintDot(pen, x, y, edge, ink, selected) {
  pen.beginPath();
  pen.arc(x, y, selected ? 6 : 4, 0, 2 * Math.PI);
  pen.fillStyle = edge;
  pen.fill();
  if (!selected) return;
  pen.strokeStyle = ink.focus;
  pen.lineWidth = 2;
  pen.stroke();
}

/** A box: heads are rounded, MLPs and neurons square, what heads share dashed; with name, score and the slots that are read. */
function paintBox(pen, graph, node, place, x, y, edge, view, ink, state) {
  const { width, height } = graph.size;
  const selected = state.selected?.kind === "node" && state.selected.place === place;
  const radius = { head: 9, input: 17, logits: 17 }[node.kind] ?? 2;
  pen.beginPath();
  pen.roundRect(x - width / 2, y - height / 2, width, height, radius);
  pen.fillStyle = ink.boxed;
  const alpha = pen.globalAlpha;
  pen.globalAlpha = 1; // edges behind it do not shine through, also where it stands back
  pen.fill();
  pen.globalAlpha = alpha;
  pen.strokeStyle = selected ? ink.focus : edge;
  pen.lineWidth = selected ? 3 : node.role === undefined ? 1.1 : 2.2;
  pen.setLineDash(node.kind === "shared" ? [4, 3] : []);
  pen.stroke();
  pen.setLineDash([]);
  if (view.scale < 0.28) return;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillStyle = ink.ink;
  const slots = slotsOf(graph, node, state);
  const second = node.kind === "group" ? `${node.members.length} neurons` : node.score === undefined ? "" : signed(node.score);
  const top = y - (second && slots.size ? 11 : second ? 6 : slots.size ? 5 : 0);
  pen.font = `${node.name.length > 9 ? 10 : 12}px system-ui, sans-serif`;
  pen.fillText(clipped(node.name, 12), x, top);
  if (view.scale < 0.5) return;
  pen.font = "9px system-ui, sans-serif";
  if (second) pen.fillText(second, x, top + 12);
  pen.font = "italic 9px system-ui, sans-serif";
  for (const slot of slots) pen.fillText(slot, x + graph.size[slot], y + height / 2 - 7);
}

/** The slots by which shown edges enter a head. */
function slotsOf(graph, node, state) {
  const slots = new Set();
  if (node.kind !== "head") return slots;
  for (const place of node.ins) if (place < state.kept && graph.edges[place].slot) slots.add(graph.edges[place].slot);
  return slots;
}

/** A name that fits a box. */
function clipped(text, most) {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

/** The frame around the node that the keyboard is at. */
function paintFocus(pen, graph, state, arranged, ink) {
  const at = arranged.at[state.focus];
  const [width, height] = at.dot ? [18, 18] : [graph.size.width + 10, graph.size.height + 10];
  pen.strokeStyle = ink.focus;
  pen.lineWidth = 3;
  pen.beginPath();
  pen.roundRect(at.x - width / 2, at.y - height / 2, width, height, 8);
  pen.stroke();
}
