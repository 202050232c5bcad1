// A circuit as the views read it: nodes that know their edges, and what is shown of it just now.

/**
 * @typedef {Object} GraphNode
 * @property {string} name
 * @property {string} kind "input", "head", "mlp", "neuron", "logits", "shared" (keys or values of several heads), "group"
 * @property {number} [layer]
 * @property {number} [score]
 * @property {string} [role]
 * @property {number} [group] the node of its MLP, of a neuron
 * @property {number[]} [members] the neurons of a group
 * @property {number[]} ins edges into it, the strongest first
 * @property {number[]} outs edges out of it
 *
 * @typedef {Object} GraphEdge
 * @property {string} name
 * @property {number} from
 * @property {number[]} to
 * @property {string} [slot]
 * @property {number} [score]
 * @property {number[]} [interval]
 *
 * @typedef {Object} State What is shown just now.
 * @property {Set<number>} folded layers that are one thin row
 * @property {Set<number>} closed groups whose neurons are one box
 * @property {number} kept edges that are shown: so many of the strongest
 * @property {string} query
 * @property {?{kind: "node"|"edge", place: number}} selected
 * @property {?{kind: "node"|"edge", place: number}} hovered
 * @property {number} focus the node that the keyboard is at
 */

/** Layers of which all are unfolded at first, and rows of neurons that are open at first. */
const UNFOLDED = 16;
const OPEN_NEURONS = 40;

/**
 * A circuit with each node's edges.
 * @param {Object} block the block of the page
 */
function graphOf(block) {
  const nodes = block.nodes.map((node) => ({ ...node, ins: [], outs: [] }));
  block.edges.forEach((edge, place) => {
    nodes[edge.from].outs.push(place);
    for (const end of edge.to) nodes[end].ins.push(place);
  });
  for (const node of nodes) {
    if (node.kind !== "group") continue;
    node.ins = [...new Set(node.members.flatMap((member) => nodes[member].ins))].sort((a, b) => a - b);
    node.outs = [...new Set(node.members.flatMap((member) => nodes[member].outs))].sort((a, b) => a - b);
  }
  const largest = Math.max(0, ...block.edges.map((edge) => Math.abs(edge.score ?? 0)));
  return { ...block, nodes, largest, strengths: strengthsOf(block), roles: rolesOf(nodes) };
}

/** A number a role, in the order of their names; beyond the palette the last. */
function rolesOf(nodes) {
  const names = [...new Set(nodes.map((node) => node.role).filter((role) => role !== undefined))].sort();
  return new Map(names.map((name, place) => [name, Math.min(place, 6)]));
}

/** For every layer the sum of |score| over the edges that begin or end there. */
function strengthsOf(block) {
  const found = new Map();
  for (const node of block.nodes) if (node.layer !== undefined) found.set(node.layer, 0);
  for (const edge of block.edges) {
    for (const end of [edge.from, ...edge.to]) {
      const { layer } = block.nodes[end];
      if (layer !== undefined) found.set(layer, found.get(layer) + Math.abs(edge.score ?? 1));
    }
  }
  return found;
}

/**
 * What is shown at first: of many layers the strongest unfolded, of many neurons none by itself.
 * @returns {State}
 */
function firstState(graph) {
  const layers = [...graph.strengths.keys()].sort((a, b) => graph.strengths.get(b) - graph.strengths.get(a));
  const folded = new Set(layers.length > UNFOLDED ? layers.slice(UNFOLDED / 2) : []);
  const groups = graph.nodes.map((node, place) => (node.kind === "group" ? place : -1)).filter((place) => place >= 0);
  const neurons = groups.reduce((sum, place) => sum + graph.nodes[place].members.length, 0);
  return {
    folded,
    closed: new Set(neurons > OPEN_NEURONS ? groups : []),
    kept: graph.edges.length,
    query: "",
    selected: null,
    hovered: null,
    focus: 0,
  };
}

/** Whether a node is one of those that a search asks for; without a search all are. */
function matches(node, query) {
  if (!query) return true;
  const words = `${node.name} ${node.role ?? ""} ${node.kind}`.toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) => words.includes(word));
}

/** Whether an edge is shown: it is among the strongest that are kept. */
function isKept(place, state) {
  return place < state.kept;
}

/** The sign of an edge's effect on the metric: 1 supports, −1 opposes (of unknown meaning: the score's own); 0 without score. */
function effectOf(edge, graph) {
  if (edge.score === undefined || edge.score === 0) return 0;
  return Math.sign(edge.score) * (graph.supports || 1);
}

/** What is said of how much remains with so many edges. */
function remaining(graph, state) {
  const whole = graph.edges.length;
  const last = state.kept > 0 ? graph.edges[state.kept - 1].score : undefined;
  const least = last === undefined || state.kept === whole ? "" : `, |score| ≥ ${plain(Math.abs(last))}`;
  return `${grouped(state.kept)} of ${counted(whole, "edge")}${least}`;
}

/** What is said of how much of the behaviour so many edges keep; "" where nothing was measured. */
function keeps(graph, state) {
  const { curve } = graph;
  if (!curve) return "";
  if (state.kept === graph.edges.length && curve.whole) {
    return `faithfulness ${plain(curve.whole.effect)} [${plain(curve.whole.low)}, ${plain(curve.whole.high)}], measured`;
  }
  if (!curve.edges.length) return "faithfulness of fewer edges: not measured";
  const exact = curve.edges.indexOf(state.kept);
  if (exact >= 0) return `faithfulness ${plain(curve.faithfulness[exact])} (${graph.words.curve})`;
  if (state.kept < curve.edges[0]) return `faithfulness: not measured below ${counted(curve.edges[0], "edge")}`;
  const value = between(curve.edges, curve.faithfulness, state.kept);
  return `faithfulness about ${plain(value)} (${graph.words.curve})`;
}
