// Elements of the page. Every text from the data becomes a text node or the value of an attribute that holds text: nothing is
// ever read as markup.

/**
 * @typedef {Object} Attributes Attributes of an element by name; `on` holds listeners by event; null leaves one out.
 * @typedef {Node|string|number|null|undefined|false} Child
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Sets attributes and appends children; what is null, undefined or false is left out.
 * @template {Element} T
 * @param {T} element
 * @param {Attributes} attributes
 * @param {Child[]} children
 * @returns {T}
 */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/**
 * An HTML element.
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...(Child|Child[])} children
 */
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/**
 * An SVG element.
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...(Child|Child[])} children
 */
function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * A button that does something; it is no form's.
 * @param {string} text
 * @param {(event: Event) => void} act
 * @param {Attributes} [attributes]
 */
function button(text, act, attributes = {}) {
  return make("button", { type: "button", on: { click: act }, ...attributes }, text);
}

/**
 * Colours of the style by name, as a canvas and as computed mixtures need them: resolved for the look that is on.
 * @param {string[]} names names of custom properties, without the hyphens
 * @returns {Record<string, string>}
 */
function colours(names) {
  const probe = make("span", { class: "probe", "aria-hidden": "true" });
  document.body.append(probe);
  const found = {};
  for (const name of names) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

/**
 * A token as it can be seen: a space in front as a raised dot, line breaks as arrows, nothing as an empty sign.
 * @param {string} token
 */
function visible(token) {
  const shown = token.replace(/^ /, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/\r/g, "␍");
  return shown === "" ? "∅" : shown;
}
