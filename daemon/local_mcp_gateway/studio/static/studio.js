// The pages work without this script. It copies, follows what happens, and listens to keys.
"use strict";
const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]");

// What a person is told after a form is for the page that follows, and not for one that asks behind it.
const ask = (method, url = location.href) => fetch(url, { method, headers: { "X-Requested-With": "fetch" } }).catch(() => null);

// --- copying, sending, waiting ------------------------------------------------------------------
document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const text = document.getElementById(copy.dataset.copy).textContent;
    const said = copy.textContent;
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(copy.dataset.copy));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      copy.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { copy.textContent = said; }, 2000);
  }
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-send]")) event.target.form.requestSubmit();
});
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent && Date.now() - form.dataset.sent < 800) return event.preventDefault();
  form.dataset.sent = Date.now();
  const button = event.submitter;
  if (form.dataset.waits && button) {
    // After the browser has read the form: a disabled button would not be sent.
    setTimeout(() => { button.setAttribute("aria-busy", "true"); button.textContent = form.dataset.waits; }, 300);
    progress(form);
  }
});
// Long work tells how far it is, where its result will be told.
function progress(form) {
  const field = $("input[name=work]", form) ?? form.appendChild(Object.assign(document.createElement("input"), { type: "hidden", name: "work" }));
  field.value = Math.random();
  const box = $("#progress");
  const asking = setInterval(async () => {
    const answer = await ask("GET", `/studio/working?work=${field.value}`);
    const now = answer?.ok ? await answer.json() : {};
    if (!now.words) return;
    const [words, bar] = box.children;
    if (words.textContent !== now.words) words.textContent = now.words;
    if (now.percent === null) bar.removeAttribute("value"); else bar.value = now.percent;
    if (!box.matches(":popover-open")) box.showPopover();
  }, 500);
  addEventListener("pagehide", () => { clearInterval(asking); box.hidePopover(); }, { once: true });
}
addEventListener("pageshow", () => all("form[data-sent]").forEach((form) => delete form.dataset.sent));
$("#problem")?.focus();

// --- what was done, for thirty seconds ----------------------------------------------------------
const toast = $("#toast");
if (toast) {
  let left = setTimeout(() => toast.remove(), 30000);
  toast.addEventListener("focusin", () => clearTimeout(left));
  toast.addEventListener("mouseenter", () => clearTimeout(left));
  toast.addEventListener("mouseleave", () => { left = setTimeout(() => toast.remove(), 10000); });
}

// --- following ----------------------------------------------------------------------------------
const state = $("#live-state");
const fresh = $("#fresh");
const pause = $("#pause");
let paused = false;
let gathered = 0;
let swapping = false;
let again = null;

function say(chip, text) {
  if (state && state.textContent !== text) {
    state.className = `chip ${chip}`;
    state.textContent = text;
  }
}

function out() {
  say("bad", "signed out");
  if (!$("#ended")) $("#main").prepend($("#when-ended").content.cloneNode(true));
}

async function swap(kinds, force = false) {
  if (swapping) { again = new Set([...(again ?? []), ...kinds]); return; }
  const wanted = all("[data-swap]").filter((one) => one.dataset.swap.split(" ").some((kind) => kinds.has(kind)));
  if (!wanted.length) return;
  swapping = true;
  try {
    const response = await ask("GET");  // the stream says that it is lost
    if (response?.status === 401) out();
    if (!response?.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const one of wanted) {
      const other = page.getElementById(one.id);
      const busy = one.contains(document.activeElement) && document.activeElement !== document.body;
      if (other && (force || !busy) && one.innerHTML !== other.innerHTML) one.replaceChildren(...other.childNodes);
    }
    const counts = $("#nav", page);
    for (const link of all("#nav a")) {
      const other = counts && $(`a[href="${CSS.escape(link.getAttribute("href"))}"]`, counts);
      if (other && link.innerHTML !== other.innerHTML) link.replaceChildren(...other.childNodes);
    }
  } finally {
    swapping = false;
    if (again) { const next = again; again = null; swap(next); }
  }
}

function reading() {
  const list = $("[data-gathers]");
  return list && (paused || scrollY > 200 || list.matches(":hover") || list.contains(document.activeElement));
}

// A browser opens six connections to a host, so only a page that is seen holds a stream.
function listen(source) {
  let stream;
  const news = (counts, after) => {
    const kinds = new Set(Object.keys(counts));
    if (kinds.has("calls") && reading()) {
      gathered += counts.calls;
      fresh.hidden = false;
      fresh.textContent = gathered ? `${gathered} new` : "Show what is new";
      kinds.delete("calls");
    }
    setTimeout(() => swap(kinds), after);
  };
  const follow = () => {
    stream = new EventSource(source);
    stream.onopen = () => { say(paused ? "off" : "ok live", paused ? "paused" : "live"); $("#ended")?.remove(); };
    stream.onerror = lost;
    stream.addEventListener("changed", (event) => {
      const counts = JSON.parse(event.data);
      news(counts, "calls" in counts ? 1100 : 50);  // the log of calls is written once a second
    });
  };
  const lost = async ({ target }) => {
    say("warn", "lost, trying again");
    if (target.readyState !== EventSource.CLOSED) return;  // the browser tries again by itself
    const answer = await ask("HEAD");
    if (answer?.status === 401) out();
    else setTimeout(() => { if (target === stream && !document.hidden) follow(); }, 2000);
  };
  document.addEventListener("visibilitychange", () => {
    stream?.close();
    if (document.hidden) return;
    follow();
    news(Object.fromEntries(all("[data-swap]").flatMap((one) => one.dataset.swap.split(" ")).map((kind) => [kind, 0])), 0);
  });
  if (!document.hidden) follow();
}
if (document.body.dataset.live && $("[data-swap]")) listen(document.body.dataset.live);
if (pause && $("[data-gathers]")) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
    pause.textContent = paused ? "Follow" : "Pause";
    say(paused ? "off" : "ok live", paused ? "paused" : "live");
    if (!paused) refresh();
  });
}
function refresh() {
  gathered = 0;
  fresh.hidden = true;
  scrollTo({ top: 0 });
  swap(new Set(["calls"]), true);
}
fresh?.addEventListener("click", refresh);

// --- keys ---------------------------------------------------------------------------------------
const keys = $("#keys");
let quiet = false;
try { quiet = localStorage.getItem("studio-keys") === "off"; } catch { /* storage may be blocked */ }
const toggle = $("#keys-off");
if (toggle) {
  const show = () => { toggle.textContent = quiet ? "Turn the keys on" : "Turn the keys off"; };
  show();
  toggle.addEventListener("click", () => {
    quiet = !quiet;
    try { localStorage.setItem("studio-keys", quiet ? "off" : "on"); } catch { /* for this page only */ }
    show();
  });
}
let went = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.key === "Enter" && event.target.form) {
    event.preventDefault();
    return event.target.form.requestSubmit($("button.go", event.target.form) ?? undefined);
  }
  if (event.key === "Escape" && typing(event.target)) return event.target.blur();
  if (quiet || typing(event.target) || event.altKey || event.metaKey) return;
  if (event.ctrlKey) {
    if (event.key === "z" && $("#undo")) { event.preventDefault(); $("#undo").click(); }
    return;
  }
  if (Date.now() - went < 1200) {
    const link = $(`#nav a[data-key="${CSS.escape(event.key)}"]`);
    went = 0;
    if (link) return link.click();
  }
  if (event.key === "g") went = Date.now();
  else if (event.key === "/") { const find = $("[data-find]"); if (find) { event.preventDefault(); find.focus(); find.select(); } }
  else if (event.key === "?" && keys) keys.showModal();
  else if (event.key === "n") $("[data-new]")?.click();
});

// --- the grid: one stop of Tab, arrows inside ---------------------------------------------------
const grid = $("[data-grid]");
if (grid) {
  const cells = () => all("tbody tr", grid).map((row) => [...row.children]);
  const at = (cell) => [cell.parentElement.sectionRowIndex, cell.cellIndex];
  const first = cells()[0]?.[0];
  if (first) {
    all("tbody a", grid).forEach((link) => { link.tabIndex = -1; });
    grid.parentElement.removeAttribute("tabindex");
    const start = $("tr[aria-selected] > *", grid) ?? first;
    start.tabIndex = 0;
    if ($("#detail")) start.focus();
  }
  // A row upright: beside the grid where there is room, else on its page.
  const room = matchMedia("(min-width: 110rem)");
  let turning = 0;
  const beside = (row) => {
    const link = $("a[data-row]", row);
    if (!link || !room.matches) return link?.click();
    const to = new URL(location.href);
    to.searchParams.set("row", new URL(link.href).searchParams.get("key"));
    if (!$("#detail")) { location.href = to; return; }
    history.replaceState(null, "", to);
    clearTimeout(turning);
    turning = setTimeout(async () => {
      const response = await ask("GET", to);
      if (!response?.ok || location.href !== to.href) return;
      const other = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("detail");
      if (other) $("#detail").replaceChildren(...other.childNodes);
    }, 80);
  };
  const go = (row, column) => {
    const to = cells()[row]?.[column];
    if (!to) return;
    all("td[tabindex='0'], th[tabindex='0']", grid).forEach((cell) => { cell.tabIndex = -1; });
    to.tabIndex = 0;
    to.focus();
    all("tr[aria-selected]", grid).forEach((one) => one.removeAttribute("aria-selected"));
    to.parentElement.setAttribute("aria-selected", "true");
    if ($("#detail") && room.matches) beside(to.parentElement);
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  grid.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td, tbody th");
    if (!cell || event.target !== cell || quiet) return;
    const [row, column] = at(cell);
    if (steps[event.key]) { event.preventDefault(); go(row + steps[event.key][0], column + steps[event.key][1]); }
    else if (event.key === "Home") { event.preventDefault(); go(row, 0); }
    else if (event.key === "End") { event.preventDefault(); go(row, cell.parentElement.children.length - 1); }
    else if (event.key === ".") { event.preventDefault(); beside(cell.parentElement); }
    else if (event.key === "Enter") { event.preventDefault(); ($("a", cell) ?? $("a[data-row]", cell.parentElement))?.click(); }
  });
  grid.addEventListener("click", (event) => {
    const cell = event.target.closest("td");
    if (cell && !event.target.closest("a, button") && !String(getSelection())) go(...at(cell));
  });
  grid.addEventListener("dblclick", (event) => {
    const row = event.target.closest("tbody tr");
    if (row && !event.target.closest("a, button")) $("a[data-row]", row)?.click();
  });
}

// A value that is typed is meant: it is no longer NULL.
document.addEventListener("input", (event) => {
  const null_ = event.target.name && $(`input[name="${CSS.escape(event.target.name.replace(/^v/, "n"))}"][type=checkbox]`);
  if (null_ && null_ !== event.target) null_.checked = false;
});

// --- rows that a foreign key may refer to --------------------------------------------------------
let asking = 0;
document.addEventListener("input", (event) => {
  const field = event.target.closest("[data-choices]");
  if (!field) return;
  clearTimeout(asking);
  asking = setTimeout(async () => {
    const response = await ask("GET", `${field.dataset.choices}&text=${encodeURIComponent(field.value)}`);
    if (!response?.ok) return;
    const found = new DOMParser().parseFromString(`<datalist>${await response.text()}</datalist>`, "text/html");
    field.list.replaceChildren(...found.querySelector("datalist").childNodes);
  }, 150);
});

// --- lists that are narrowed while one types ----------------------------------------------------
const narrow = $("[data-narrow]");
narrow?.addEventListener("input", () => {
  const text = narrow.value.toLowerCase();
  for (const item of all(narrow.dataset.narrow)) item.hidden = !item.textContent.toLowerCase().includes(text);
});
for (const pick of all("select[data-goto]")) pick.addEventListener("change", () => { location.href = pick.value; });
