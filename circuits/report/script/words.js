// Texts word by word, each word coloured by how much it speaks for a class.

/**
 * Words in colour: blue speaks for the class, vermilion against it, the strongest word of a text in full colour.
 * @param {{caption: string, legend: string, rows: {name: string, words: string[], numbers: number[]}[]}} block
 */
function words(block) {
  return make("figure", { class: "excerpts" }, make("figcaption", {}, block.caption), make("p", { class: "note" }, block.legend),
    block.rows.map(worded));
}

/** One text. */
function worded(row) {
  const largest = Math.max(1e-12, ...row.numbers.map(Math.abs));
  const said = row.words.map((word, i) => {
    const own = make("span", { class: "weighed", title: `${visible(word)}: ${plain(row.numbers[i])}` }, visible(word));
    tinted(own, row.numbers[i], largest);
    return own;
  });
  return make("div", { class: "excerpt" }, make("p", { class: "note" }, row.name), make("div", { class: "texted" }, said));
}
