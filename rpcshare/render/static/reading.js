// What makes a long session easier to read: links and copies of parts, folding, search, keys, colours.

import { copyFor } from "./clipboard.js";

/** @param {string} id @returns {HTMLElement | null} */
const byId = (id) => document.getElementById(id);

const messages = byId("messages");

// Where a link leads

/** Shows an element, whatever it is folded into.
 * @param {HTMLElement} target */
function reveal(target) {
  for (let each = target.parentElement; each; each = each.parentElement) {
    if (each instanceof HTMLDetailsElement) each.open = true;
  }
  const own = target.querySelector(":scope > details");
  if (own instanceof HTMLDetailsElement) own.open = true;
  target.scrollIntoView({ behavior: "instant" });
  for (const other of document.querySelectorAll(".is-target")) other.classList.remove("is-target");
  target.classList.add("is-target");
}

function followHash() {
  const id = decodeURIComponent(location.hash.slice(1));
  const target = id && byId(id);
  if (target && target.matches(".part, .message, .file-diff")) reveal(target);
  // What is not on the page may be further down.
  const part = /^p-(.+)$/.exec(id)?.[1];
  if (messages && part && !target && new URLSearchParams(location.search).get("part") !== part) {
    location.replace(`?part=${encodeURIComponent(part)}#${encodeURIComponent(id)}`);
  }
}
window.addEventListener("hashchange", followHash);
followHash();

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element && event.target.closest("a[href*='?part=']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const target = byId(decodeURIComponent(new URL(link.href).hash.slice(1)));
  if (!target || !messages) return;
  event.preventDefault();
  link.closest("dialog")?.close();
  history.pushState(null, "", link.href);
  reveal(target);
});

// Copies of parts

/** Returns what can be seen of a part as text; lines of a comparison with their signs.
 * @param {Element} part */
function textOf(part) {
  const rows = [...part.querySelectorAll(".hunk tr:not(.hunk-head)")];
  if (rows.length) return rows.map((row) => row.querySelector(".sign")?.textContent.padEnd(1) + row.lastElementChild.textContent).join("\n");
  const typed = [...part.querySelectorAll(":scope > .typed, :scope > .rest > .typed")];
  if (typed.length) return typed.map((each) => each.textContent).join("\n");
  const code = part.querySelector(".code code");
  return (code ?? part.querySelector(".body, .prose") ?? part).textContent.trim();
}

/** @param {Element} part */
async function copyOf(part) {
  if (part.dataset.copy) return part.dataset.copy;
  const whole = part.querySelector("a.show-all");
  if (!whole) return textOf(part);
  const answer = await fetch(whole.href, { credentials: "same-origin" });
  const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
  const other = parsed.querySelector(".part");
  return other ? other.dataset.copy || textOf(other) : textOf(part);
}

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element && event.target.closest(".part-copy, [data-copies]");
  if (!button) return;
  const part = button.closest(".part");
  copyFor(button, button.dataset.copies ?? (part ? await copyOf(part) : ""));
});

// Folding: what is loaded later, too

let isUnfolding = null;

/** @param {ParentNode} root */
function fold(root) {
  if (isUnfolding === null) return;
  for (const details of root.querySelectorAll(".part details, details.back, .file-diff > details")) details.open = isUnfolding;
}

/** @param {boolean} unfold */
function foldAll(unfold) {
  isUnfolding = unfold;
  fold(document);
}
byId("expand-all")?.addEventListener("click", () => foldAll(true));
byId("fold-all")?.addEventListener("click", () => foldAll(false));
if (messages) {
  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const node of change.addedNodes) if (node instanceof Element && node.matches(".chunk, .message")) fold(node);
    }
  }).observe(messages, { childList: true, subtree: true });
}

// Colours

const THEMES = ["system", "light", "dark"];
const themeButton = byId("theme");

function tellTheme() {
  const theme = document.documentElement.dataset.theme ?? "system";
  if (!themeButton) return;
  themeButton.dataset.theme = theme;
  themeButton.setAttribute("aria-label", `Colours: ${theme}`);
  themeButton.title = `Colours: ${theme}`;
}

function nextTheme() {
  const root = document.documentElement;
  const theme = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem("rpcshare-theme");
    else localStorage.setItem("rpcshare-theme", theme);
  } catch {
    // it holds for this page
  }
  tellTheme();
}
themeButton?.addEventListener("click", nextTheme);
tellTheme();

// Search within the session

const find = byId("find");

function openSearch() {
  if (!(find instanceof HTMLDialogElement)) {
    const link = document.querySelector("a[data-opens=find]:not([aria-current])");
    link?.click();
    return link !== null;
  }
  if (!find.open) find.showModal();
  find.querySelector("input")?.select();
  return true;
}

if (find instanceof HTMLDialogElement) {
  const input = find.querySelector("input");
  const list = find.querySelector(".found");
  let typing = 0;
  let latest = 0;
  const search = async () => {
    const number = ++latest;
    const query = new URLSearchParams({ q: input.value.trim(), fragment: "1" });
    try {
      const answer = await fetch(`?${query}`, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const html = await answer.text();
      if (number !== latest) return;
      const template = document.createElement("template");
      template.innerHTML = html;
      list.replaceChildren(template.content);
    } catch {
      if (number === latest) list.textContent = "The server did not answer. Try again.";
    }
  };
  input.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(search, 180);
  });
  find.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const first = list.querySelector("a");
    if (first) first.focus();
    else search();
  });
  find.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const stops = [input, ...list.querySelectorAll("a")];
    const at = stops.indexOf(document.activeElement);
    stops[Math.min(Math.max(at + (event.key === "ArrowDown" ? 1 : -1), 0), stops.length - 1)]?.focus();
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element && event.target.closest("a[data-opens=find]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openSearch();
  });
}

// Keys

/** @param {string} id */
function openDialog(id) {
  const dialog = byId(id);
  if (dialog instanceof HTMLDialogElement && !dialog.open) dialog.showModal();
}

document.addEventListener("click", (event) => {
  const target = event.target;
  if (target instanceof HTMLDialogElement) target.close(); // beside what is in it
  if (target instanceof Element && target.closest("[data-closes]")) target.closest("dialog")?.close();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const target = event.target;
  if (target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))) return;
  if (document.querySelector("dialog[open]")) return;
  const actions = {
    "/": () => openSearch(),
    "?": () => openDialog("keys"),
    e: () => foldAll(true),
    f: () => foldAll(false),
    t: () => nextTheme(),
  };
  if (!Object.hasOwn(actions, event.key)) return;
  if (actions[event.key]() !== false) event.preventDefault();
});

// A menu is closed by what is beside it, and by Escape

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (event.target instanceof Node && !menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary")?.focus();
});
byId("copy-link")?.addEventListener("click", async (event) => {
  const button = event.currentTarget;
  copyFor(button, button.dataset.link || location.href.split("#")[0]);
});
