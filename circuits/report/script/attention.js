// Tokens of a prompt, coloured by what a head attends to or by how active a neuron is.

/**
 * Hundredths that were packed into text, a byte each.
 * @param {string} packed
 */
function unpacked(packed) {
  return Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
}

/**
 * What a head attends to at one token: a share for every token that it can see.
 * @param {{rows: "all"|"last", prompts: string[]}} attention
 * @param {number} prompt
 * @param {number} query
 * @param {boolean} causal
 * @param {number} width tokens of the prompt
 */
function attended(attention, prompt, query, causal, width) {
  const bytes = unpacked(attention.prompts[prompt]);
  if (attention.rows === "last") return [...bytes].map((one) => one / 100);
  const start = causal ? (query * (query + 1)) / 2 : query * width;
  return [...bytes.slice(start, start + (causal ? query + 1 : width))].map((one) => one / 100);
}

/**
 * A prompt whose tokens are coloured for a node, with the prompts to choose from.
 * @param {Object} graph
 * @param {GraphNode} node
 */
function tokenView(graph, node) {
  const { attention, activations } = node;
  const heading = attention ? "What it attends to" : "Where it is active";
  const shown = make("div", { class: "tokens" });
  const told = make("p", { class: "note", role: "status" });
  const choice = promptChoice(graph, (prompt) => show(prompt, graph.prompts[prompt].column));

  function show(prompt, query) {
    const { tokens } = graph.prompts[prompt];
    const values = attention ? attended(attention, prompt, query, graph.causal, tokens.length) : activations[prompt];
    const largest = attention ? 1 : Math.max(1e-9, ...activations.flat().map(Math.abs));
    const pressable = attention?.rows === "all";
    shown.replaceChildren(...tokens.map((token, place) => {
      const value = values[place];
      const title = value === undefined ? "not seen from here" : attention ? `attention ${plain(value)}` : `activation ${signed(value)}`;
      const own = { class: `token${attention && place === query ? " query" : ""}`, title };
      const one = pressable
        ? button(visible(token), () => show(prompt, place), { ...own, "aria-pressed": String(place === query) })
        : make("span", own, visible(token));
      if (value) tinted(one, value, largest);
      return one;
    }));
    told.textContent = attention ? attendedWords(tokens, values, query, pressable) : activeWords(tokens, values);
  }

  show(0, graph.prompts[0].column);
  return make("section", {}, make("h4", {}, heading), choice, shown, told);
}

/** A choice of prompts; nothing where there is one. */
function promptChoice(graph, chosen) {
  if (graph.prompts.length < 2) return null;
  const options = graph.prompts.map((prompt, place) => make("option", { value: place }, `${place + 1}. ${clipped(prompt.tokens.join(""), 60)}`));
  const list = make("select", { "aria-label": "prompt", on: { change: (event) => chosen(Number(event.target.value)) } }, options);
  return make("p", {}, list);
}

/** Where most of the attention goes, in words. */
function attendedWords(tokens, values, query, pressable) {
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, 3).filter((place) => values[place] >= 0.01);
  const most = order.map((place) => `${visible(tokens[place])} ${plain(values[place])}`).join(", ");
  const choose = pressable ? " Choose a token to see what it attends to." : "";
  return `From ${visible(tokens[query])} (framed) most attention goes to ${most || "no token in particular"}.${choose}`;
}

/** Where a neuron is most active, in words. */
function activeWords(tokens, values) {
  const order = [...values.keys()].sort((a, b) => Math.abs(values[b]) - Math.abs(values[a])).slice(0, 3);
  return `Most active at ${order.map((place) => `${visible(tokens[place])} ${signed(values[place])}`).join(", ")}.`;
}
