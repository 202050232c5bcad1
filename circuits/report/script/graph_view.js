// The view of a circuit: a canvas that is panned and zoomed.

const CLOSEST = 4;

/** Curves up to which the whole picture is painted also while something moves; and how long after, in milliseconds. */
const FEW = 150;
const STILL = 140;

/** Of the width and height of the view, how much is painted beyond each side before a drag. */
const BEYOND = 0.5;
const REACH = 7;

/** Height of the view for each of many rows. */
const ROW = 28;

/** How high a view may be: what fits a window, or where there are many rows somewhat more, so that names can be read. */
function mostHigh(arranged) {
  return Math.max(0.78 * window.innerHeight, Math.min(1.2 * window.innerHeight, ROW * arranged.rows.length));
}

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
    const most = mostHigh(own.arranged);
    const aspect = wide / most;
    if (Math.abs(aspect - own.aspect) > 0.05) [own.aspect, own.arranged, own.index] = [aspect, arrange(graph, state, aspect), null];
    const { arranged } = own;
    const needed = Math.min(1.25, wide / (arranged.right - arranged.left)) * arranged.height + 32;
    stage.style.height = `${Math.round(Math.max(300, Math.min(needed, most)))}px`;
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
