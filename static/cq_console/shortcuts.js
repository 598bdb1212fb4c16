// Single keys for what a page offers. The table in the dialog #cq-keys says which key does what to
// which element, so what is listed is what works. It never renders: it presses, or moves the focus.
//
// A row: data-key: keys between spaces; data-does: press, focus, next, previous; data-on: selectors
// between bars, the most wanted first; data-within: an ancestor of the focused element to look in;
// data-once: ancestors that stand for a task: of several for the same one, the first counts;
// data-then: press what was moved to as long as this is shown.

const table = document.getElementById("cq-keys");
const offered = document.querySelector("[data-cq-keys]");
const WRITES = "textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=button], [type=submit])";
const STORED = "cq_keys";

const isShown = (element) => Boolean(element?.checkVisibility({ visibilityProperty: true }));

function isOn() {
  try {
    return localStorage.getItem(STORED) !== "off";
  } catch {
    return true;
  }
}

function first(selectors, within) {
  for (const selector of selectors.split("|")) {
    const found = [...within.querySelectorAll(selector)].find(isShown);
    if (found) return found;
  }
  return null;
}

// From what has the focus; else from what is selected; else from the top.
function beside({ on, once }, step) {
  const shown = [...document.querySelectorAll(on)].filter(isShown);
  const all = once ? firstOfEach(shown, once) : shown;
  const here = document.activeElement?.closest("#cq")
    ? document.activeElement
    : document.querySelector("[data-selected] .cq-node-link, [data-linked]");
  if (!here) return step > 0 ? all[0] : all.at(-1);
  const wanted = step > 0 ? Node.DOCUMENT_POSITION_FOLLOWING : Node.DOCUMENT_POSITION_PRECEDING;
  const after = all.filter((element) => here.compareDocumentPosition(element) & wanted);
  return step > 0 ? after[0] : after.at(-1);
}

function firstOfEach(elements, once) {
  const seen = new Set();
  return elements.filter((element) => {
    const task = element.closest(once)?.dataset.task;
    if (!task) return true;
    return !seen.has(task) && seen.add(task);
  });
}

function act(row) {
  const { does, on, within, then } = row;
  if (does === "next" || does === "previous") {
    const element = beside(row, does === "next" ? 1 : -1);
    element?.focus();
    element?.scrollIntoView({ block: "nearest" });
    if (element && then && isShown(document.querySelector(then))) element.click();
    return Boolean(element);
  }
  const scope = within ? document.activeElement?.closest(within) : document;
  const element = scope && first(on, scope);
  if (!element) return false;
  if (does === "press") {
    element.click();
    if (element.matches("summary")) element.focus();
  } else {
    element.focus();
    element.select?.();
  }
  return true;
}

function pressed(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (!isOn() || event.target.closest?.(WRITES) || document.querySelector("dialog[open]")) return;
  if (event.key === "?") return table.showModal();
  for (const row of table.querySelectorAll("[data-key]")) {
    if (row.dataset.key.split(" ").includes(event.key) && act(row.dataset)) {
      return event.preventDefault();
    }
  }
}

if (table) {
  const on = table.querySelector("input[type=checkbox]");
  on.checked = isOn();
  on.addEventListener("change", () => {
    try {
      localStorage.setItem(STORED, on.checked ? "on" : "off");
    } catch {
      // Nothing can be kept here: it holds as the page was opened.
    }
  });
  document.addEventListener("keydown", pressed);
  if (offered) {
    offered.hidden = false;
    offered.addEventListener("click", () => table.showModal());
  }
}
