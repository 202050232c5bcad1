// The view of a circuit: a canvas that is panned, zoomed, pointed at and walked through by keyboard.

const CLOSEST = 4;

/** Curves up to which the whole picture is painted also while something moves; and how long after, in milliseconds. */
const FEW = 150;
const STILL = 140;

/** Of the width and height of the view, how much is painted beyond each side before a drag. */
const BEYOND = 0.5;
const REACH = 7;

/** Room at the left edge for the names of rows. */
function gutterOf(view) {
  return view.width < 560 ? 34 : 104;
}

/**
 * The view.
 * @param {Object} graph
 * @param {State} state
 * @param {{choose: (chosen: ?{kind: string, place: number}) => void, fold: (layer: number) => void, told: (text: string) => void}} acts
 */
function graphView(graph, state, acts) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const stage = make("div", {
    class: "stage", tabindex: 0, role: "application", "aria-roledescription": "graph",
    "aria-label": "Circuit. Arrow keys walk from node to node, Enter opens one, F folds its layer, plus and minus zoom, 0 shows all.",
  }, canvas);
  const pen = canvas.getContext("2d", { alpha: false });
  const view = { x: 0, y: 0, scale: 1, width: 0, height: 0, dense: 1 };
  const own = { arranged: arrange(graph, state, 1), aspect: 1, index: null, ink: null, due: false, sheet: null, quick: false, still: 0 };

  /** Paints at the next frame, once however often it is asked; what moves is painted quickly, and whole when it stands still. */
  function refresh() {
    own.sheet = null;
    own.quick = own.arranged.curves.length > FEW;
    if (own.quick) {
      clearTimeout(own.still);
      own.still = setTimeout(paintWhole, STILL);
    }
    soon();
  }

  /** Paints the whole picture, nothing of which moves. */
  function paintWhole() {
    own.quick = false;
    soon();
  }

  function soon() {
    if (own.due) return;
    own.due = true;
    requestAnimationFrame(paintNow);
  }

  function paintNow() {
    own.due = false;
    own.ink ??= colours(INKS);
    if (own.sheet) paintMoved();
    else paint(pen, graph, state, own.arranged, view, own.ink, how());
  }

  function how() {
    return { focused: document.activeElement === stage, quick: own.quick };
  }

  /** While the graph is dragged: what was painted once, with room around, moves as a whole. */
  function paintMoved() {
    const { sheet } = own;
    const [dx, dy] = [view.x - sheet.x, view.y - sheet.y];
    if (!sheet.image || Math.abs(dx) > sheet.across || Math.abs(dy) > sheet.up) paintSheet();
    paintGround(pen, own.arranged, view, own.ink);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.drawImage(own.sheet.image, Math.round((view.x - own.sheet.x - own.sheet.across) * view.dense),
      Math.round((view.y - own.sheet.y - own.sheet.up) * view.dense));
    paintLabels(pen, own.arranged, view, own.ink);
  }

  /** Paints the graph on a sheet larger than the view. */
  function paintSheet() {
    const [across, up] = [Math.round(BEYOND * view.width), Math.round(BEYOND * view.height)];
    const image = own.sheet?.image ?? make("canvas");
    image.width = Math.round((view.width + 2 * across) * view.dense);
    image.height = Math.round((view.height + 2 * up) * view.dense);
    const larger = { ...view, x: view.x + across, y: view.y + up, width: view.width + 2 * across, height: view.height + 2 * up };
    paintGraph(image.getContext("2d"), graph, state, own.arranged, larger, own.ink, { ...how(), quick: false });
    own.sheet = { image, x: view.x, y: view.y, across, up };
  }

  /** Arranges anew, after something was folded, and shows all of it. */
  function rearrange() {
    own.arranged = arrange(graph, state, own.aspect);
    own.index = null;
    resize();
    fit();
  }

  /** Takes the width that the page gives, and a height that the graph needs. */
  function resize() {
    const wide = stage.clientWidth - gutterOf({ width: stage.clientWidth });
    const aspect = wide / (0.78 * window.innerHeight);
    if (Math.abs(aspect - own.aspect) > 0.05) [own.aspect, own.arranged, own.index] = [aspect, arrange(graph, state, aspect), null];
    const { arranged } = own;
    const needed = Math.min(1.25, wide / (arranged.right - arranged.left)) * arranged.height + 32;
    stage.style.height = `${Math.round(Math.max(300, Math.min(needed, 0.78 * window.innerHeight)))}px`;
    const box = stage.getBoundingClientRect();
    view.dense = Math.min(2, window.devicePixelRatio || 1);
    const first = view.width === 0;
    [view.width, view.height] = [box.width, box.height];
    canvas.width = Math.round(box.width * view.dense);
    canvas.height = Math.round(box.height * view.dense);
    if (first) fit();
    own.sheet = null;
    own.quick = false;
    paintNow();
  }

  /** Shows all of the graph, as large as the view lets it be. */
  function fit() {
    const { arranged } = own;
    const wide = arranged.right - arranged.left;
    const gutter = gutterOf(view);
    const scale = Math.min((view.width - gutter - 8) / wide, (view.height - 24) / arranged.height, 1.25);
    view.scale = Math.max(scale, 0.05);
    view.x = gutter + (view.width - gutter) / 2 - (view.scale * (arranged.left + arranged.right)) / 2;
    view.y = (view.height - view.scale * arranged.height) / 2;
    refresh();
  }

  /** Zooms, with a point of the view staying where it is. */
  function zoom(factor, x = view.width / 2, y = view.height / 2) {
    const scale = Math.max(0.05, Math.min(CLOSEST, view.scale * factor));
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    refresh();
  }

  function pan(dx, dy) {
    view.x += dx;
    view.y += dy;
    own.sheet ??= { image: null, x: 0, y: 0, across: 0, up: 0 };
    soon();
  }

  /** What lies under a point of the view. */
  function under(x, y) {
    const [a, b] = [(x - view.x) / view.scale, (y - view.y) / view.scale];
    const node = nodeUnder(graph, own.arranged, a, b);
    if (node >= 0) return { kind: "node", place: node };
    own.index ??= indexOf(own.arranged);
    const edge = edgeUnder(own.index, own.arranged, state, a, b, REACH / view.scale);
    return edge >= 0 ? { kind: "edge", place: edge } : null;
  }

  /** Brings a node into view. */
  function reveal(place) {
    const at = own.arranged.at[place];
    const [x, y] = [view.x + view.scale * at.x, view.y + view.scale * at.y];
    const room = 50;
    if (x < room) view.x += room - x;
    if (x > view.width - room) view.x -= x - view.width + room;
    if (y < room) view.y += room - y;
    if (y > view.height - room) view.y -= y - view.height + room;
    refresh();
  }

  const parts = { stage, view, own, refresh, rearrange, resize, fit, zoom, pan, under, reveal };
  listenToPointers(parts, graph, state, acts);
  listenToKeys(parts, graph, state, acts);
  new ResizeObserver(resize).observe(stage);
  stage.addEventListener("focus", refresh);
  stage.addEventListener("blur", refresh);
  return parts;
}

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
