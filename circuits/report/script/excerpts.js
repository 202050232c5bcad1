// Texts token by token, and below each token what a neuron does there and what was foretold.

/** What counts as much: 10 is the largest activation that was shown. */
const MOST = 10;

/**
 * Excerpts.
 * @param {{caption: string, rows: {name: string, tokens: string[], real: number[], simulated: number[]}[]}} block
 */
function excerpts(block) {
  const legend = make("p", { class: "note" }, "Below each token: above what it does, below what is foretold, from 0 to 10; blue above 0, vermilion below.");
  return make("figure", { class: "excerpts" }, make("figcaption", {}, block.caption), legend, block.rows.map(excerpt));
}

/** One text. */
function excerpt(row) {
  const tokens = row.tokens.map((token, i) => {
    const told = `${visible(token)}: ${plain(row.real[i])}, foretold ${plain(row.simulated[i])}`;
    return make("span", { class: "foretold", title: told }, make("span", { class: "said" }, visible(token)),
      strength("real", row.real[i]), strength("simulated", row.simulated[i]));
  });
  return make("div", { class: "excerpt" }, make("p", { class: "note" }, row.name), make("div", { class: "texted" }, tokens));
}

/** A number as a coloured strip, with its digits where it is no 0. */
function strength(kind, value) {
  const own = make("span", { class: `strength ${kind}` }, Math.abs(value) < 0.5 ? "" : String(Math.round(value)).replace("-", "−"));
  tinted(own, value, MOST);
  return own;
}
