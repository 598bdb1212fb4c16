// Listens for nudges and asks the server for what has changed. It never renders: what is shown
// comes as HTML from the server; here are only the asking, and the state of what stands open.

const POLL_WITH_SOCKET = 20_000;
const POLL_ALONE = 5_000;
const RECONNECT_AT_MOST = 30_000;
const LINES_KEPT = 500;
const MARGIN = 400;
const MENUS = ".cq-more-verbs[open], .cq-all[open]";
const CELL_KEYS = ["v", "status", "leaf", "matches"];

const live = document.getElementById("cq-live");
const dialog = document.getElementById("cq-dialog");
const said = document.getElementById("cq-said");

// The zone of the viewer's clock, for the times that the server writes.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone) {
  document.cookie = `cq_tz=${encodeURIComponent(zone)};path=/;max-age=31536000;samesite=lax`;
}

// Asking for what has changed: one request at a time, none while nobody looks.

let isAsking = false;
let isStale = false;
let hasSocket = false;
let timer = 0;

function refresh() {
  if (!live) return;
  if (document.hidden || isAsking) {
    isStale = true;
    return;
  }
  isAsking = true;
  isStale = false;
  live.dispatchEvent(new CustomEvent("cq:refresh"));
}

function schedule() {
  clearTimeout(timer);
  if (!live) return;
  timer = setTimeout(() => {
    refresh();
    schedule();
  }, hasSocket ? POLL_WITH_SOCKET : POLL_ALONE);
}

function asked(event) {
  if (event.detail.elt !== live) return;
  isAsking = false;
  schedule();
  if (isStale) setTimeout(refresh, 250);
}

document.body.addEventListener("htmx:afterRequest", asked);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});

document.body.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.elt !== live) return;
  const asks = event.detail.parameters;
  asks.have = [...document.querySelectorAll("[data-part]")]
    .map((part) => `${part.id}:${part.dataset.v}`)
    .join(" ");
  asks.rows = rowsInSight();
  const levels = openLevels();
  if (levels) asks.levels = levels;
  if (box && "cqFollow" in box.dataset) askForLines(asks);
  if (live.dataset.cqFailed) asks.failed = live.dataset.cqFailed;
  if (live.dataset.cqNode) asks.node = live.dataset.cqNode;
});

function rowsInSight() {
  let text = "";
  for (const row of document.querySelectorAll("[data-live]")) {
    const box = row.getBoundingClientRect();
    const isNear = box.bottom > -MARGIN && box.top < innerHeight + MARGIN;
    if (isNear && box.height > 0 && text.length < 6000) text += row.dataset.live + row.dataset.v;
  }
  return text;
}

function openLevels() {
  const levels = [];
  for (const level of document.querySelectorAll("[data-cq-level]:not([data-full]):not([hidden])")) {
    const rows = level.querySelectorAll(":scope > [data-live]");
    const last = rows.length ? rows[rows.length - 1].dataset.live.slice(1) : "";
    if (rows.length < 100) levels.push(`${level.dataset.cqLevel}:${last}:${rows.length}`);
  }
  return levels.slice(0, 20).join(" ");
}

// Who follows the log gets what is new in it; who reads in it learns how much that would be.
function askForLines(asks) {
  const ids = [...lines.querySelectorAll("[data-line]")].slice(-200).map((line) => +line.dataset.line);
  if (!follows || isReading()) {
    asks.reading = Math.max(0, ...ids);
    return;
  }
  const minutes = lines.querySelectorAll("[data-minute]");
  asks.minute = minutes.length ? minutes[minutes.length - 1].dataset.minute : "";
  asks.lines = differences(ids);
}

function differences(ids) {
  ids.sort((one, other) => one - other);
  return ids.map((id, index) => (index ? id - ids[index - 1] : id).toString(36)).join(".");
}

// Nudges: "look now", without data.

let wait = 1000;
let wasOpen = false;
let attempts = 0;

function connect() {
  if (!live?.dataset.cqSocket) return;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}${live.dataset.cqSocket}`);
  socket.addEventListener("open", () => {
    hasSocket = wasOpen = true;
    wait = 1000;
    schedule();
    refresh();
  });
  socket.addEventListener("message", refresh);
  socket.addEventListener("close", (event) => {
    hasSocket = false;
    schedule();
    // Refused is refused: the page goes on by polling.
    if (event.code === 4403) return;
    // So does a page of a host that serves no websockets.
    attempts += 1;
    if (!wasOpen && attempts >= 4) return;
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, RECONNECT_AT_MOST);
  });
}

// Swaps: only what nobody is using.

document.body.addEventListener("htmx:oobBeforeSwap", (event) => {
  const { target, fragment } = event.detail;
  const incoming = fragment.dataset ?? {};
  if (target.matches("[data-part]") && isInUse(target)) {
    event.detail.shouldSwap = false;
    return;
  }
  if (incoming.v) target.dataset.v = incoming.v;
  if (incoming.rowV) {
    const row = target.closest("[data-live]");
    for (const key of CELL_KEYS) {
      const value = incoming[`row${key[0].toUpperCase()}${key.slice(1)}`];
      if (value !== undefined) row.dataset[key] = value;
    }
    const tick = row.querySelector("input[name=task]");
    if (tick && !tick.checked && incoming.rowSeen) tick.value = `${row.dataset.task}:${incoming.rowSeen}`;
  }
  if (target.classList.contains("cq-cell")) {
    if (target.innerHTML === fragment.innerHTML) {
      event.detail.shouldSwap = false;
      return;
    }
    target.classList.remove("cq-changed");
    requestAnimationFrame(() => target.classList.add("cq-changed"));
  }
});

function isInUse(element) {
  const selection = getSelection();
  if (!selection.isCollapsed && selection.rangeCount && selection.getRangeAt(0).intersectsNode(element)) {
    return true;
  }
  // Pressed, not let go yet: some browsers give a button no focus.
  if (element.querySelector("details[open], :active")) return true;
  if (element === hasActed) return false;
  return element.contains(document.activeElement) && element.id !== "cq-verbs";
}

// A table whose button was pressed shows what that did, and the focus stays in its row.
let hasActed = null;
function letGoOfTable() {
  const part = document.activeElement?.closest("[data-part]");
  if (!part || part.id === "cq-verbs") return;
  const rows = () => [...part.querySelectorAll("tr, li")];
  const place = rows().indexOf(document.activeElement.closest("tr, li"));
  hasActed = part;
  new MutationObserver((changes, observer) => {
    observer.disconnect();
    hasActed = null;
    if (document.activeElement === document.body) rows()[place]?.querySelector("[data-verb]")?.focus();
  }).observe(part, { childList: true });
}

// The buttons of the page are swapped when they say something else: focus stays on the verb.
let verbInFocus = null;
document.body.addEventListener("htmx:beforeSwap", () => {
  const focused = document.activeElement;
  verbInFocus = focused?.closest("#cq-verbs") ? focused.dataset.verb : null;
});
document.body.addEventListener("htmx:afterSettle", () => {
  if (verbInFocus && document.activeElement === document.body) {
    document.querySelector(`#cq-verbs [data-verb="${verbInFocus}"]`)?.focus();
  }
  verbInFocus = null;
});

// The tree: opening, closing, selecting.

document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const twist = event.target.closest("button.cq-twist");
  if (twist) return toggle(twist);
  const link = event.target.closest("[data-cq-select]");
  if (link && isShown("cq-inspector")) {
    event.preventDefault();
    return select(link);
  }
  const close = event.target.closest("[data-cq-close]");
  if (close && dialog.open) {
    event.preventDefault();
    return dialog.close();
  }
  const copy = event.target.closest("[data-cq-copy]");
  if (copy) navigator.clipboard?.writeText(document.getElementById(copy.dataset.cqCopy).textContent);
  if (event.target.closest("#cq-new-lines")) follow();
});

function toggle(twist) {
  const level = document.getElementById(twist.getAttribute("aria-controls"));
  const opens = level.hidden;
  level.hidden = !opens;
  twist.setAttribute("aria-expanded", String(opens));
  if (opens && !("loaded" in level.dataset)) {
    level.dataset.loaded = "";
    twist.dispatchEvent(new CustomEvent("cq:open"));
  }
}

function isShown(id) {
  const element = document.getElementById(id);
  return Boolean(element && element.getBoundingClientRect().width && innerWidth >= 1180);
}

function select(link) {
  const row = link.closest("[data-task]");
  document.querySelectorAll("[data-selected]").forEach((other) => delete other.dataset.selected);
  row.dataset.selected = "";
  live.dataset.cqNode = row.dataset.task;
  const url = new URL(location.href);
  url.searchParams.set("node", row.dataset.task);
  history.replaceState(history.state, "", url);
  htmx.ajax("GET", link.dataset.cqSelect, { target: "#cq-inspector", swap: "innerHTML" });
}

// The dialog: opened by what arrives in it, closed by what was done.

document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target !== dialog || !dialog.innerHTML.trim() || dialog.open) return;
  // What had the focus gets it back: the button of a menu, since the menu is closed by then.
  document.activeElement?.closest(MENUS)?.querySelector("summary").focus();
  closeMenus(null);
  dialog.showModal();
});
let saidUntil = 0;
document.body.addEventListener("cq:done", () => {
  letGoOfInspector();
  closeMenus(null);
  clearTimeout(saidUntil);
  saidUntil = setTimeout(() => said.replaceChildren(), 10_000);
  if (dialog?.open) dialog.close();
  letGoOfTable();
  setTimeout(() => (isAsking ? (isStale = true) : refresh()), 50);
});

// A menu closes when something else is pressed, as Escape closes it.
function closeMenus(except) {
  for (const menu of document.querySelectorAll(MENUS)) {
    if (!menu.contains(except)) menu.open = false;
  }
}
document.addEventListener("click", (event) => closeMenus(event.target));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  document.activeElement?.closest(MENUS)?.querySelector("summary").focus();
  closeMenus(null);
});

// Who has acted on what it shows wants to see it change, and was reading it until then.
function letGoOfInspector() {
  const inspector = document.getElementById("cq-inspector");
  if (!inspector) return;
  inspector.querySelectorAll("details[open]").forEach((details) => { details.open = false; });
  if (inspector.contains(document.activeElement)) {
    document.querySelector("[data-selected] .cq-node-link")?.focus({ preventScroll: true });
  }
}

document.body.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status !== 401 && event.detail.elt !== live && said) {
    said.textContent = `${event.detail.xhr.status} ${event.detail.xhr.statusText}`;
  }
});

// The log: follows its end until somebody scrolls up, selects in it, or moves the focus into it.

const box = document.getElementById("cq-log-box");
const lines = document.getElementById("cq-lines");
let follows = Boolean(box && "cqFollow" in box.dataset);

function isReading() {
  const selection = getSelection();
  const isSelected = !selection.isCollapsed && selection.rangeCount && selection.getRangeAt(0).intersectsNode(lines);
  return isSelected || lines.contains(document.activeElement);
}

function follow() {
  follows = true;
  getSelection().removeAllRanges();
  box.focus({ preventScroll: true });
  box.scrollTop = box.scrollHeight;
  refresh();
}

function prune() {
  let surplus = lines.children.length - LINES_KEPT;
  while (surplus-- > 0) {
    // The minute of the first line that stays goes on standing above it.
    const [first, second] = lines.children;
    const isMinuteOfSecond = "minute" in first.dataset && second && !("minute" in second.dataset);
    (isMinuteOfSecond ? second : first).remove();
  }
}

if (box) {
  const linked = box.querySelector("[data-linked]");
  if (linked) linked.scrollIntoView({ block: "center" });
  else if (follows) box.scrollTop = box.scrollHeight;
  box.addEventListener("scroll", () => {
    if (!("cqFollow" in box.dataset)) return;
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 8;
    const comesBack = isAtEnd && !follows;
    follows = isAtEnd;
    if (comesBack) refresh();
  });
  new MutationObserver((changes) => {
    if (!changes.some((change) => change.addedNodes.length)) return;
    document.getElementById("cq-no-lines")?.remove();
    prune();
    if (follows) box.scrollTop = box.scrollHeight;
  }).observe(lines, { childList: true });
}

// The list: ticking.

const selection = document.getElementById("cq-selection");
if (selection) {
  const all = selection.querySelector("[data-cq-all]");
  const ticks = () => [...selection.querySelectorAll("input[name=task]")];
  all.hidden = false;
  all.addEventListener("change", () => {
    ticks().forEach((tick) => (tick.checked = all.checked));
    count();
  });
  selection.addEventListener("change", count);
  count();

  function count() {
    const ticked = ticks().filter((tick) => tick.checked).length;
    all.checked = ticked > 0 && ticked === ticks().length;
    all.indeterminate = ticked > 0 && !all.checked;
    selection.classList.toggle("cq-has-ticks", ticked > 0);
    for (const place of selection.querySelectorAll("[data-cq-count]")) place.textContent = ticked || "";
    for (const button of selection.querySelectorAll("button[name=verb]")) button.disabled = !ticked;
  }
}

// Where one is stays in sight, in lists of pages and tabs that are wider than a phone.
for (const here of document.querySelectorAll(".cq-strip [aria-current], .cq-tabs [aria-current]")) {
  const line = here.closest("nav");
  line.scrollLeft = here.getBoundingClientRect().right - line.getBoundingClientRect().right + 48;
}

document.querySelectorAll("[data-cq-copy]").forEach((button) => (button.hidden = false));
document.documentElement.classList.add("cq-scripted");
connect();
schedule();
