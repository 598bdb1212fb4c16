// What the form of a repeating task needs beside htmx: it never renders, it only drops what is late
// and marks what is meant.

const crontab = document.getElementById("id_crontab");
const columns = document.querySelectorAll(".cq-columns li");

// With scripts the preview follows the typing; without this button Enter saves, as it always does.
document.getElementById("cq-preview-button")?.remove();

// A reply to what was typed before is dropped, even when it comes last.
document.body.addEventListener("htmx:beforeSwap", (event) => {
  const { target, requestConfig, xhr } = event.detail;
  if (!target.dataset.cqAsks || xhr.status >= 400) return;
  for (const name of target.dataset.cqAsks.split(" ")) {
    const field = document.getElementById(`id_${name}`);
    if (field && field.value !== requestConfig.parameters[name]) event.detail.shouldSwap = false;
  }
});

// The field itself says that it is wrong, too, and so does the name of its column.
function markWhatIsWrong(target) {
  const wrong = target.querySelector("[role=alert]")?.dataset.field;
  for (const name of target.dataset.cqAsks.split(" ")) {
    document.getElementById(`id_${name}`)?.setAttribute("aria-invalid", String(name === wrong));
  }
  if (target.id !== "cq-preview") return;
  const column = target.querySelector("[data-wrong]")?.dataset.wrong;
  columns.forEach((item, index) => item.toggleAttribute("data-wrong", String(index) === column));
}

document.body.addEventListener("htmx:afterSwap", ({ detail: { target } }) => {
  if (target.dataset.cqAsks) markWhatIsWrong(target);
});

// Which of the five columns is being typed.
function markWhereTheCaretIs() {
  const before = crontab.value.slice(0, crontab.selectionStart).trimStart();
  const here = document.activeElement === crontab && !before.startsWith("@") ? before.split(/\s+/).length - 1 : -1;
  columns.forEach((item, index) => item.toggleAttribute("data-here", index === here));
}

if (crontab) {
  for (const name of ["focus", "blur", "input", "keyup", "click"]) {
    crontab.addEventListener(name, markWhereTheCaretIs);
  }
}
