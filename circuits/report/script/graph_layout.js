// Where nodes and edges stand: columns as the layout of the pictures has them, rows by what is folded just now.

const STRIP = 20;
const STRIP_GAP = 7;
const MARGIN = 14;

/** How much further apart columns may stand than in the layout. */
const MOST_SPREAD = 2.2;

/**
 * @typedef {Object} Row A row of the drawing.
 * @property {number} y its middle
 * @property {number} height
 * @property {boolean} strip whether it is a folded layer
 * @property {string} label
 * @property {?number} layer
 * @property {string} part
 * @property {number[]} nodes from left to right
 *
 * @typedef {Object} Arranged
 * @property {Row[]} rows from the top down
 * @property {{x: number, y: number, row: number, dot: boolean}[]} at a place a node (of one that is hidden: its group's)
 * @property {number} left
 * @property {number} right
 * @property {number} height
 * @property {Curve[]} curves an edge and an end each
 *
 * @typedef {Object} Curve
 * @property {number} edge
 * @property {number[]} points of a cubic Bézier curve, x0 y0 … x3 y3
 * @property {Path2D} path
 * @property {?Path2D} arrow
 */

/**
 * Arranges what is shown.
 * @param {Object} graph
 * @param {State} state
 * @param {number} aspect width over height of the paper: on a wide one columns stand further apart
 * @returns {Arranged}
 */
function arrange(graph, state, aspect) {
  const rows = rowsOf(graph, state);
  const busy = (1.4 * graph.edges.length) / Math.max(1, rows.length);
  const gap = rows.length > UNFOLDED ? 20 + Math.min(12, busy) : 30 + Math.min(60, busy);
  let y = 0;
  for (const row of rows) {
    row.y = y + row.height / 2;
    y += row.height + (row.strip ? STRIP_GAP : gap);
  }
  const last = rows[rows.length - 1];
  y = last.y + last.height / 2;
  const widest = Math.max(...graph.rows.flatMap((record) => record.items.map(([, x]) => 2 * Math.abs(x)))) + graph.size.width;
  const at = placesOf(graph, rows, Math.max(1, Math.min(MOST_SPREAD, (aspect * y) / widest)));
  const xs = rows.flatMap((row) => row.nodes.map((node) => at[node].x));
  const arranged = {
    rows,
    at,
    left: Math.min(0, ...xs) - graph.size.width / 2 - MARGIN,
    right: Math.max(0, ...xs) + graph.size.width / 2 + MARGIN,
    height: y,
    curves: [],
  };
  arranged.curves = curvesOf(graph, arranged);
  return arranged;
}

/** The rows that are shown, from the top down; those of a folded layer are one. */
function rowsOf(graph, state) {
  const rows = [];
  for (const record of [...graph.rows].reverse()) {
    const nodes = record.items.map(([node]) => node);
    const strip = record.layer !== null && state.folded.has(record.layer);
    const group = record.part === "group" ? nodes[0] : graph.nodes[nodes[0]].group;
    if (!strip && record.part === "group" && !state.closed.has(group)) continue;
    if (!strip && record.part === "neuron" && state.closed.has(group)) continue;
    const last = rows[rows.length - 1];
    if (strip && last?.strip && last.layer === record.layer) {
      if (record.part !== "group") last.nodes.push(...nodes);
      continue;
    }
    const height = strip ? STRIP : graph.size.height;
    const label = strip ? `layer ${record.layer}` : record.label;
    rows.push({ y: 0, height, strip, label, layer: record.layer, part: record.part, nodes: strip && record.part === "group" ? [] : nodes });
  }
  return rows;
}

/** Where each node stands; one without a place of its own stands where its group does, and the group where its first neuron does. */
function placesOf(graph, rows, spread) {
  const across = new Map(graph.rows.flatMap((record) => record.items.map(([node, x]) => [node, x * spread])));
  const at = graph.nodes.map(() => null);
  rows.forEach((row, place) => {
    for (const node of row.nodes) at[node] = { x: across.get(node), y: row.y, row: place, dot: row.strip };
  });
  graph.nodes.forEach((node, place) => {
    if (!at[place] && node.group !== undefined) at[place] = at[node.group];
  });
  graph.nodes.forEach((node, place) => {
    if (!at[place] && node.members) at[place] = at[node.members[0]];
  });
  return at;
}

/** The curve of every edge to every one of its ends; none where both ends are in one folded row. */
function curvesOf(graph, arranged) {
  const curves = [];
  graph.edges.forEach((edge, place) => {
    for (const end of edge.to) {
      const [start, stop] = [arranged.at[edge.from], arranged.at[end]];
      if (start.row === stop.row) continue;
      const points = curvePoints(graph, arranged, edge, place, start, stop, graph.nodes[end]);
      const path = new Path2D();
      path.moveTo(points[0], points[1]);
      path.bezierCurveTo(points[2], points[3], points[4], points[5], points[6], points[7]);
      curves.push({ edge: place, points, path, arrow: stop.dot ? null : arrowHead(points) });
    }
  });
  return curves;
}

/** A curve that leaves upwards and arrives upwards; one that would run behind the boxes between its ends is bent around them. */
function curvePoints(graph, arranged, edge, place, start, stop, reader) {
  const half = graph.size.height / 2;
  const port = edge.slot && reader.kind !== "shared" && !stop.dot ? graph.size[edge.slot] : 0;
  const [x0, y0] = [start.x, start.y - (start.dot ? 0 : half)];
  const [x3, y3] = [stop.x + port, stop.y + (stop.dot ? 0 : half)];
  const rise = y0 - y3;
  const between = start.row - stop.row - 1;
  const straight = Math.abs(x3 - x0) < graph.size.width * 0.8;
  const side = place % 2 ? 1 : -1;
  const bend = between > 0 && straight ? side * (graph.size.width * 0.75 + 6 * Math.min(between, 12) + (place % 5) * 5) : 0;
  const pull = Math.min(0.5 * rise, 40 + 0.28 * rise);
  return [x0, y0, x0 + bend, y0 - pull, x3 + bend, y3 + pull, x3, y3];
}

/** The head of an arrow at the end of a curve. */
function arrowHead(points) {
  const [x, y] = [points[6], points[7]];
  const [fromX, fromY] = [points[4], points[5]];
  const length = Math.hypot(x - fromX, y - fromY) || 1;
  const [dx, dy] = [(x - fromX) / length, (y - fromY) / length];
  const path = new Path2D();
  path.moveTo(x, y);
  path.lineTo(x - 7 * dx - 3 * dy, y - 7 * dy + 3 * dx);
  path.lineTo(x - 7 * dx + 3 * dy, y - 7 * dy - 3 * dx);
  path.closePath();
  return path;
}
