// What a hand does to a circuit: drags, pinches, wheels and clicks, and the keys that walk through it.

/** Drags, pinches, wheels and clicks. */
function listenToPointers(parts, graph, state, acts) {
  const { stage, view } = parts;
  const down = new Map();
  let moved = 0;

  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    down.set(event.pointerId, at(event));
    if (down.size === 1) moved = 0;
    hover(null);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    const before = down.get(event.pointerId);
    if (!before) {
      hover(parts.under(x, y));
      return;
    }
    if (down.size === 1) parts.pan(x - before[0], y - before[1]);
    else pinch(event.pointerId, [x, y]);
    moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
    down.set(event.pointerId, [x, y]);
  });

  /** Two fingers: how far they are apart zooms, their middle pans. */
  function pinch(id, point) {
    const other = [...down].find(([key]) => key !== id)?.[1];
    const before = down.get(id);
    const [was, is] = [Math.hypot(before[0] - other[0], before[1] - other[1]), Math.hypot(point[0] - other[0], point[1] - other[1])];
    parts.zoom(is / (was || 1), (point[0] + other[0]) / 2, (point[1] + other[1]) / 2);
    parts.pan((point[0] - before[0]) / 2, (point[1] - before[1]) / 2);
  }

  function hover(found) {
    if (found?.kind === state.hovered?.kind && found?.place === state.hovered?.place) return;
    state.hovered = found;
    stage.classList.toggle("pointing", found !== null);
    acts.told(found ? nameOf(graph, found) : "");
    parts.refresh();
  }

  stage.addEventListener("pointerup", (event) => {
    if (!down.delete(event.pointerId) || moved > 5) return;
    const [x, y] = at(event);
    const row = parts.own.arranged.rows[rowUnder(parts.own.arranged, (y - view.y) / view.scale)];
    const found = parts.under(x, y);
    if (x < gutterOf(view) && found?.kind !== "node" && row && row.layer !== null) acts.fold(row.layer);
    else {
      if (found?.kind === "node") state.focus = found.place;
      acts.choose(found);
    }
  });
  stage.addEventListener("pointercancel", (event) => down.delete(event.pointerId));
  stage.addEventListener("pointerleave", () => hover(null));
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== stage) return;
    event.preventDefault();
    parts.zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) / 240), ...at(event));
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => {
    const found = parts.under(...at(event));
    if (found?.kind === "node" && graph.nodes[found.place].kind === "group") acts.open(found.place);
  });
}

/** A node or an edge in a few words. */
function nameOf(graph, { kind, place }) {
  if (kind === "edge") {
    const edge = graph.edges[place];
    return `${edge.name}${edge.score === undefined ? "" : `: ${within(edge.score, edge.interval)}`}`;
  }
  const node = graph.nodes[place];
  const words = [node.name, KINDS[node.kind], node.role, node.score === undefined ? null : `score ${signed(node.score)}`,
    `${counted(node.ins.length, "edge")} in, ${grouped(node.outs.length)} out`];
  return words.filter(Boolean).join(", ");
}

const KINDS = {
  input: "the input", head: "a head", mlp: "an MLP", neuron: "a neuron", logits: "the logits",
  shared: "an input that heads share", group: "neurons of an MLP",
};

/** Walks through the graph. */
function listenToKeys(parts, graph, state, acts) {
  const { stage } = parts;
  const walk = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const others = {
    "+": () => parts.zoom(1.25),
    "=": () => parts.zoom(1.25),
    "-": () => parts.zoom(0.8),
    0: () => parts.fit(),
    Enter: () => acts.choose({ kind: "node", place: state.focus }),
    " ": () => acts.choose({ kind: "node", place: state.focus }),
    Escape: () => acts.choose(null),
    Home: () => step(0, Infinity),
    End: () => step(0, -Infinity),
    f: () => foldAtFocus(),
    F: () => foldAtFocus(),
  };

  /** To the next node of the row, or the nearest one of another row. */
  function step(dx, dy) {
    const { rows, at } = parts.own.arranged;
    const here = at[state.focus];
    let row = rows[here.row];
    if (dy) {
      let place = Math.max(0, Math.min(rows.length - 1, here.row + dy));
      while (rows[place] && !rows[place].nodes.length) place += Math.sign(dy);
      row = rows[place] ?? row;
    }
    const order = row.nodes;
    if (dx) state.focus = order[Math.max(0, Math.min(order.length - 1, order.indexOf(state.focus) + dx))] ?? order[0];
    else state.focus = order.reduce((best, node) => (Math.abs(at[node].x - here.x) < Math.abs(at[best].x - here.x) ? node : best));
    parts.reveal(state.focus);
    acts.told(nameOf(graph, { kind: "node", place: state.focus }));
  }

  function foldAtFocus() {
    const { layer } = graph.nodes[state.focus];
    if (layer !== undefined) acts.fold(layer);
  }

  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = walk[event.key] ? () => (event.shiftKey ? parts.pan(-40 * walk[event.key][0], -40 * walk[event.key][1]) : step(...walk[event.key])) : others[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
