// The page: its title, its sections, the look that is on.

/** What draws each kind of block. */
const BLOCKS = { paragraphs, facts, grid, links, heatmap, chart, excerpts, words, explorer };

/** A section with its heading. */
function sectionOf(section, place) {
  const word = section.word && make("span", { class: `word standing-${section.standing}` }, section.word);
  const own = make("section", { id: `section-${place}`, class: "part", "aria-labelledby": `heading-${place}` });
  own.append(make("h2", { id: `heading-${place}` }, section.title, word && " ", word));
  let charts = null;
  for (const block of section.blocks) {
    if (block.kind !== "chart") charts = null;
    else if (!charts) own.append((charts = make("div", { class: "charts" })));
    (charts ?? own).append(BLOCKS[block.kind](block));
  }
  return own;
}

/** A button that changes between the light, the dark and the reader's own look. */
function lookButton() {
  const looks = ["", "light", "dark"];
  const names = { "": "as the system", light: "light", dark: "dark" };
  let at = 0;
  const own = button("Look: as the system", () => {
    at = (at + 1) % looks.length;
    document.documentElement.setAttribute("data-look", looks[at]);
    own.textContent = `Look: ${names[looks[at]]}`;
    repaint();
  }, { class: "look" });
  return own;
}

/** Canvases take their colours anew. */
function repaint() {
  for (const root of document.querySelectorAll(".explorer")) {
    root.circuit.view.own.ink = null;
    root.circuit.view.resize();
  }
}

/** On paper the page is light, and nothing is folded but the numbers of charts, which are drawn. */
function listenToPrinting() {
  let before = "";
  let folded = [];
  window.addEventListener("beforeprint", () => {
    before = document.documentElement.getAttribute("data-look") ?? "";
    document.documentElement.setAttribute("data-look", "light");
    folded = [...document.querySelectorAll("details:not([open], .layers, .charted details)")];
    for (const each of folded) each.open = true;
    repaint();
  });
  window.addEventListener("afterprint", () => {
    document.documentElement.setAttribute("data-look", before);
    for (const each of folded) each.open = false;
    repaint();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
}

/** Draws everything. */
function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  document.title = data.title;
  const links = data.sections.map((section, place) => make("a", { href: `#section-${place}` }, section.title));
  const head = make("header", { class: "head" }, make("div", {}, make("h1", {}, data.title), data.lead && make("p", {}, data.lead)), lookButton());
  const nav = data.sections.length > 1 && make("nav", { "aria-label": "sections" }, links);
  document.getElementById("page").append(...[head, nav, ...data.sections.map(sectionOf)].filter(Boolean));
  listenToPrinting();
  repaint();
}

start();
