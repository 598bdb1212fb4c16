// The search box completes its last word. What is offered comes as HTML from the server; here is
// only the choosing: with the arrows, Tab or Enter, or a click.

const input = document.getElementById("cq-q");
const list = document.getElementById("cq-completions");

if (input && list) {
  let timer = 0;
  let chosen = -1;

  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", list.id);
  show(false);

  function show(isOpen) {
    list.hidden = !isOpen;
    input.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) mark(-1);
  }

  function mark(index) {
    chosen = index;
    [...list.children].forEach((item, place) => item.setAttribute("aria-selected", String(place === index)));
    const item = list.children[index];
    if (item) {
      input.setAttribute("aria-activedescendant", item.id);
      item.scrollIntoView({ block: "nearest" });
    } else {
      input.removeAttribute("aria-activedescendant");
    }
  }

  function ask() {
    clearTimeout(timer);
    timer = setTimeout(() => input.dispatchEvent(new CustomEvent("cq:complete")), 120);
  }

  function take(item) {
    input.value = item.dataset.text;
    input.focus();
    ask();
  }

  input.addEventListener("input", ask);
  input.addEventListener("click", ask);
  // Losing the focus ends it; the press on an item comes first.
  input.addEventListener("blur", () => {
    clearTimeout(timer);
    show(false);
  });
  list.addEventListener("mousedown", (event) => {
    const item = event.target.closest("[role=option]");
    event.preventDefault();
    if (item) take(item);
  });
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target !== list) return;
    mark(-1);
    show(list.children.length > 0 && document.activeElement === input);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && list.hidden) return ask();
    if (list.hidden) return;
    const last = list.children.length - 1;
    const steps = { ArrowDown: chosen < last ? chosen + 1 : 0, ArrowUp: chosen > 0 ? chosen - 1 : last };
    if (event.key in steps) {
      event.preventDefault();
      mark(steps[event.key]);
    } else if (event.key === "Escape") {
      event.preventDefault();
      show(false);
    } else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) {
      event.preventDefault();
      take(list.children[chosen]);
    }
  });
}
