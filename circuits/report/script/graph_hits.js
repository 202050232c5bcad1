// What lies under a point: nodes by their boxes, edges by an index of the squares of a grid that they pass.

const SQUARE = 28;
const PIECES = 14;

/** A point of a cubic Bézier curve. */
function curveAt(points, t) {
  const s = 1 - t;
  const [a, b, c, d] = [s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t];
  return [
    a * points[0] + b * points[2] + c * points[4] + d * points[6],
    a * points[1] + b * points[3] + c * points[5] + d * points[7],
  ];
}

/**
 * The curves that pass each square of the grid, in pieces.
 * @param {Arranged} arranged
 * @returns {Map<string, [number, number[]][]>}
 */
function indexOf(arranged) {
  const index = new Map();
  arranged.curves.forEach((curve, place) => {
    let [x, y] = [curve.points[0], curve.points[1]];
    for (let piece = 1; piece <= PIECES; piece++) {
      const [nextX, nextY] = curveAt(curve.points, piece / PIECES);
      enter(index, place, [x, y, nextX, nextY]);
      [x, y] = [nextX, nextY];
    }
  });
  return index;
}

/** Enters a piece in every square that its box touches. */
function enter(index, place, piece) {
  const [x0, y0, x1, y1] = piece;
  for (let i = Math.floor(Math.min(x0, x1) / SQUARE); i <= Math.floor(Math.max(x0, x1) / SQUARE); i++) {
    for (let j = Math.floor(Math.min(y0, y1) / SQUARE); j <= Math.floor(Math.max(y0, y1) / SQUARE); j++) {
      const key = `${i},${j}`;
      if (!index.has(key)) index.set(key, []);
      index.get(key).push([place, piece]);
    }
  }
}

/** The node whose box or dot holds a point; −1: none. */
function nodeUnder(graph, arranged, x, y) {
  for (const row of arranged.rows) {
    if (Math.abs(row.y - y) > row.height / 2 + 2) continue;
    const reach = row.strip ? 8 : graph.size.width / 2;
    for (const node of row.nodes) if (Math.abs(arranged.at[node].x - x) <= reach) return node;
  }
  return -1;
}

/** The folded or open row under a point, by its place; −1: none. */
function rowUnder(arranged, y) {
  return arranged.rows.findIndex((row) => Math.abs(row.y - y) <= row.height / 2 + 2);
}

/** The shown edge that passes nearest to a point, within some reach; −1: none. */
function edgeUnder(index, arranged, state, x, y, reach) {
  let [found, least] = [-1, reach];
  const [i, j] = [Math.floor(x / SQUARE), Math.floor(y / SQUARE)];
  for (let a = i - 1; a <= i + 1; a++) {
    for (let b = j - 1; b <= j + 1; b++) {
      for (const [place, piece] of index.get(`${a},${b}`) ?? []) {
        const { edge } = arranged.curves[place];
        if (!isKept(edge, state)) continue;
        const distance = distanceTo(piece, x, y);
        if (distance < least) [found, least] = [edge, distance];
      }
    }
  }
  return found;
}

/** How far a point is from a piece of a line. */
function distanceTo([x0, y0, x1, y1], x, y) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const t = Math.max(0, Math.min(1, ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - x0 - t * dx, y - y0 - t * dy);
}
