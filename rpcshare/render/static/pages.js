// What pages do beyond being read: they follow a session live, load what is further down as one scrolls, copy
// code, search as one types. Everything here has a link or a form that does without.

import { copyFor } from "./clipboard.js";
import "./reading.js";

/** @param {string} id @returns {HTMLElement | null} */
const byId = (id) => document.getElementById(id);

/** @param {string} html @returns {DocumentFragment} */
function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

// Copying

/** @param {ParentNode} root */
function addCopyButtons(root) {
  showLocalTimes(root);
  for (const block of root.querySelectorAll(".code")) {
    if (block.querySelector(":scope > .copy")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy this block");
    block.append(button);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest(".copy");
  if (button) copyFor(button, button.parentElement?.querySelector("code")?.textContent ?? "");
});

// Merging: one rule for all that arrives. An article holds a message's head, some of its parts and, if it goes
// to the message's end, its foot. What is on the page is replaced; what is new is put where it belongs, if what
// comes before it is on the page.

/** Replaces an element by a newer form of it, in which what the reader has opened stays open.
 * @param {Element} held @param {Element} newer */
function replace(held, newer) {
  if (held.isEqualNode(newer)) return;
  const opened = [...held.querySelectorAll("details")].map((details) => details.open);
  const said = [...held.querySelectorAll("summary")].map((summary) => summary.textContent);
  newer.querySelectorAll("details").forEach((details, index) => {
    const summary = details.querySelector("summary")?.textContent;
    if (index < opened.length && (index === 0 || said[index] === summary)) details.open = opened[index];
  });
  const focused = held.contains(document.activeElement);
  const scrolled = [...held.querySelectorAll("pre")].map((pre) => [pre, pre.scrollTop, isAtEnd(pre)]);
  held.replaceWith(newer);
  addCopyButtons(newer);
  newer.querySelectorAll("pre").forEach((pre, index) => {
    const [, top, wasAtEnd] = scrolled[index] ?? [null, 0, false];
    if (top) pre.scrollTop = wasAtEnd ? pre.scrollHeight : top;
  });
  if (focused) newer.querySelector("summary")?.focus({ preventScroll: true });
}

/** @param {Element} pre */
const isAtEnd = (pre) => pre.scrollTop > 0 && pre.scrollHeight - pre.scrollTop - pre.clientHeight < 8;

/** @param {HTMLElement} messages @param {HTMLElement} article */
function merge(messages, article) {
  const message = article.dataset.message ?? "";
  const selector = `.message[data-message="${CSS.escape(message)}"]`;
  const runs = [...messages.querySelectorAll(selector)];
  if (!runs.length) {
    insertMessage(messages, article);
    return;
  }
  for (const run of runs) {
    if (!(run instanceof HTMLElement) || run.dataset.first !== article.dataset.first) continue;
    const head = run.querySelector(".message-head");
    const newerHead = article.querySelector(".message-head");
    if (head && newerHead) replace(head, newerHead.cloneNode(true));
    run.className = article.className;
  }
  for (const part of [...article.querySelectorAll(".parts > .part")]) {
    const held = byId(part.id);
    if (part.matches(".group")) mergeGroup(runs, held, part);
    else if (held) replace(held, part);
    else insertPart(runs, part);
  }
  const foot = article.querySelector(".message-foot");
  const heldFoot = foot && byId(foot.id);
  if (heldFoot) replace(heldFoot, foot);
}

/** Puts parts under a heading that they share, if the first of them is on the page.
 * @param {Element[]} runs @param {Element | null} held @param {Element} group */
function mergeGroup(runs, held, group) {
  const members = [...group.querySelectorAll(".part")];
  const first = members[0] && byId(members[0].id);
  if (!held && first?.closest(".group")) {
    // Its beginning is further up than what has been loaded.
    for (const part of members) byId(part.id)?.replaceWith(part);
    return;
  }
  for (const part of members) {
    const alone = byId(part.id);
    if (alone && !held?.contains(alone)) alone.remove();
  }
  if (held) replace(held, group);
  else insertPart(runs, group);
}

/** @param {Element[]} runs @param {Element} part */
function insertPart(runs, part) {
  const place = Number(part.dataset.index);
  for (const run of runs) {
    const parts = [...run.querySelectorAll(":scope > .parts > .part")];
    const isEnd = run.querySelector(":scope > .message-foot") !== null;
    const next = parts.find((other) => Number(other.dataset.index) > place);
    if (place < Number(run.dataset.first) || (!next && !isEnd)) continue;
    const list = run.querySelector(":scope > .parts");
    list?.insertBefore(part, next ?? null);
    addCopyButtons(part);
    return;
  }
}

/** @param {HTMLElement} messages @param {HTMLElement} article */
function insertMessage(messages, article) {
  const after = article.dataset.after;
  byId("empty")?.remove();
  byId("refused")?.remove();
  if (!after) {
    if (!messages.querySelector("[data-load=earlier]")) firstChunk(messages).prepend(article);
  } else {
    const foot = byId(`mf-${after}`);
    if (!foot) return; // further down than what has been loaded
    foot.closest(".message")?.after(article);
  }
  addCopyButtons(article);
}

/** @param {HTMLElement} messages */
function firstChunk(messages) {
  let chunk = messages.querySelector(".chunk");
  if (!chunk) {
    chunk = document.createElement("div");
    chunk.className = "chunk";
    messages.prepend(chunk);
  }
  return chunk;
}

/** Changes the page without moving what is being read.
 * @param {() => void} change */
function inPlace(change) {
  const bar = document.querySelector(".bar")?.getBoundingClientRect().bottom ?? 0;
  const candidates = document.querySelectorAll(".part, .message-head");
  let anchor = null;
  for (const element of candidates) {
    const box = element.getBoundingClientRect();
    if (box.height && box.bottom > bar) {
      anchor = { id: element.id, top: box.top };
      break;
    }
  }
  change();
  const moved = anchor && byId(anchor.id);
  // Browsers that anchor by themselves have nothing left to be corrected.
  if (moved && window.scrollY > 0) {
    const by = moved.getBoundingClientRect().top - anchor.top;
    if (Math.abs(by) >= 1) window.scrollBy({ top: by, behavior: "instant" });
  }
}

// Loading what is further up or down

/** @param {HTMLElement} messages @returns {() => void} what is to be called when there are new links */
function loadAsOneScrolls(messages) {
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) if (entry.isIntersecting) load(entry.target);
    },
    { rootMargin: "1200px 0px" },
  );
  const watch = () => {
    for (const link of messages.querySelectorAll("[data-load]")) observer.observe(link);
  };

  /** @param {Element} link */
  async function load(link) {
    observer.unobserve(link);
    const nav = link.closest(".more");
    if (!nav || nav.classList.contains("loading")) return;
    nav.classList.add("loading");
    const isEarlier = link.getAttribute("data-load") === "earlier";
    try {
      const fragment = parse(await fetchText(`${link.getAttribute("href")}&fragment=1`));
      // The other end of what has been loaded is on the page.
      fragment.querySelector(isEarlier ? "[data-load=later]" : "[data-load=earlier]")?.closest(".more")?.remove();
      // What came live may be part of what is loaded now.
      for (const article of [...fragment.querySelectorAll(".message")]) {
        if (![article, ...article.querySelectorAll(".part")].some((each) => each.id && byId(each.id))) continue;
        inPlace(() => merge(messages, article));
        article.remove();
      }
      addCopyButtons(fragment);
      inPlace(() => nav.replaceWith(fragment));
      watch();
    } catch {
      nav.classList.remove("loading"); // the link still leads there
    }
  }
  // Not before the reader has moved: then what is shown first has been drawn.
  window.addEventListener("scroll", watch, { once: true, passive: true });
  setTimeout(watch, 1500);
  return watch;
}

/** @param {string} address */
async function fetchText(address) {
  const answer = await fetch(address, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.text();
}

// Live

/** @param {HTMLElement} shown @param {(update: object) => void} apply */
function follow(shown, apply) {
  const mark = byId("live");
  if (!mark) return;
  /** @param {string} text @param {string} kind */
  const tell = (text, kind) => {
    mark.hidden = false;
    mark.className = `live ${kind}`;
    if (mark.textContent !== text) mark.textContent = text;
  };
  let source = null;
  let pause = 1000;
  let isEnded = false;
  let lastSync = Number(shown.dataset.updated);
  // Connected is not live: only while something comes.
  const tellAge = () => {
    if (isEnded || mark.hidden || mark.classList.contains("off")) return;
    const age = Date.now() - lastSync;
    tell(age < 60000 ? "Live" : "Connected", age < 60000 ? "on" : "");
    if (age > 180000) settle();
  };
  setInterval(tellAge, 5000);
  // A browser has six HTTP connections to a server and a stream keeps one, so that a seventh page would never load.
  let takesSocket = true;
  const take = ({ data }) => {
    const update = JSON.parse(data);
    pause = 1000;
    if (update.reason) {
      isEnded = true;
      source.close();
      tell(update.reason === "deleted" ? "Ended: removed" : "Ended", "");
      settle();
      return;
    }
    if (update.syncCount > Number(shown.dataset.syncCount)) lastSync = Date.now();
    mark.hidden = false;
    mark.classList.remove("off");
    tellAge();
    mark.title = takesSocket ? "" : "No WebSocket gets through: only a few pages can be live at a time";
    shown.dataset.syncCount = String(update.syncCount);
    apply(update);
  };
  /** @param {string} [reason] of the close code: a server that is being stopped says when to come back */
  const again = (reason = "") => {
    if (isEnded) return;
    tell("Reconnecting", "off");
    const asked = Number(/\(retry-after=([\d.]{1,8})\)$/.exec(reason)?.[1] ?? 0) * 1000;
    // Not all pages of a server at the same moment.
    setTimeout(connect, Math.max(pause * (0.5 + Math.random() / 2), Math.min(asked, 30000)));
    pause = Math.min(pause * 2, 30000);
  };
  const connect = () => {
    const address = new URL(`${shown.dataset.share}/live?after=${shown.dataset.syncCount}`, document.baseURI);
    if (takesSocket) connectSocket(address);
    else connectStream(address);
  };
  /** @param {URL} address */
  const connectSocket = (address) => {
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    source = socket;
    let isOpen = false;
    socket.onopen = () => (isOpen = true);
    socket.onmessage = take;
    socket.onclose = ({ reason }) => {
      if (source !== socket) return;
      takesSocket = isOpen; // a proxy may not pass it on
      again(reason);
    };
  };
  /** @param {URL} address */
  const connectStream = (address) => {
    const stream = new EventSource(address);
    source = stream;
    stream.onmessage = take;
    stream.addEventListener("ended", take);
    stream.onerror = () => {
      if (source !== stream) return;
      stream.close();
      takesSocket = true;
      again();
    };
  };
  const leave = () => {
    const left = source;
    source = null;
    left?.close();
  };
  connect();
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) connect();
  });
}

/** Lets nothing be at work any more, where nothing can be. */
function settle() {
  for (const working of document.querySelectorAll(".working")) {
    working.className = "interrupted";
    working.textContent = "Interrupted";
  }
  for (const part of document.querySelectorAll(".part.is-running, .part.is-pending")) {
    part.classList.remove("is-running", "is-pending");
    const status = part.querySelector(".status");
    if (status) status.textContent = "interrupted";
    status?.classList.remove("running", "pending");
  }
}

/** Shows times in the viewer's own zone.
 * @param {ParentNode} root */
function showLocalTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.getAttribute("datetime") ?? "");
    if (Number.isNaN(moment.getTime())) continue;
    element.title = element.title || element.textContent;
    const local = moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    if (element.matches(".ago")) {
      element.title = local;
      continue;
    }
    if (element.textContent !== local) element.textContent = local;
  }
}

/** @param {HTMLElement} messages */
function sharePage(messages) {
  // Links to messages as the pages of the older deployment had them; the message may be further down.
  const older = /^#msg-(.+)$/.exec(location.hash)?.[1];
  if (older && !byId(`msg-${decodeURIComponent(older)}`)) location.replace(`?at=${older}#m-${older}`);

  const button = byId("follow");
  let isFollowing = false;
  const toEnd = () => {
    if (isFollowing) window.scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
  };
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      if (messages.querySelector("[data-load=later]") && !isFollowing) {
        location.href = "?end=1#follow";
        return;
      }
      setFollowing(!isFollowing);
    });
    if (location.hash === "#follow" && !messages.querySelector("[data-load=later]")) setFollowing(true);
  }

  /** @param {boolean} on */
  function setFollowing(on) {
    isFollowing = on;
    button?.setAttribute("aria-pressed", String(on));
    toEnd();
  }
  // Whoever scrolls up wants to read.
  window.addEventListener("wheel", (event) => event.deltaY < 0 && setFollowing(false), { passive: true });

  const watch = loadAsOneScrolls(messages);
  follow(messages, (update) => {
    if (update.isReset) {
      reload(messages).then(watch).then(toEnd);
      return;
    }
    const fragment = parse(update.messages);
    inPlace(() => {
      for (const article of [...fragment.querySelectorAll(".message")]) merge(messages, article);
    });
    for (const [id, html] of [["summary", update.summary], ["tabs", update.tabs]]) {
      const newer = html && parse(html).firstElementChild;
      const held = byId(id);
      if (newer && held) inPlace(() => replace(held, newer));
    }
    addPrompts(update.prompts);
    toEnd();
  });
  markPrompts();
}

/** Loads what is on the page anew, where the server cannot tell what has changed.
 * @param {HTMLElement} messages */
async function reload(messages) {
  for (const chunk of [...messages.querySelectorAll(".chunk")]) {
    const address = chunk.getAttribute("data-source") || "?";
    try {
      const fragment = parse(await fetchText(`${address}${address.endsWith("?") ? "" : "&"}fragment=1`));
      const later = fragment.querySelector("[data-load=later]")?.closest(".more");
      const there = new Set([...fragment.querySelectorAll(".message, .part")].map((each) => each.id));
      inPlace(() => {
        for (const held of [...chunk.querySelectorAll(".message, .part")]) {
          if (!there.has(held.id)) held.remove(); // taken back, and removed by the next prompt
        }
        for (const article of [...fragment.querySelectorAll(".message")]) merge(messages, article);
      });
      if (later && !messages.querySelector("[data-load=later]") && chunk === messages.querySelector(".chunk:last-of-type")) {
        messages.append(later);
      }
    } catch {
      return; // the stream will come back, and this with it
    }
  }
  await renewFrame();
}

/** Loads anew what tells of the session as a whole. */
async function renewFrame() {
  try {
    const newer = new DOMParser().parseFromString(await fetchText(location.href), "text/html");
    for (const id of ["summary", "tabs", "toc"]) {
      const held = byId(id);
      const found = newer.getElementById(id);
      if (held && found) inPlace(() => replace(held, found));
    }
  } catch {
    // the next update brings it
  }
}

/** @param {string} html */
function addPrompts(html) {
  const toc = byId("toc");
  if (!toc || !html) return;
  for (const item of [...parse(html).children]) {
    const held = byId(item.id);
    if (held) replace(held, item);
    else toc.append(item);
  }
  toc.closest(".toc")?.classList.toggle("short", toc.children.length < 2);
}

/** Marks the prompt that is being read about. */
function markPrompts() {
  const toc = byId("toc");
  if (!toc) return;
  let waiting = false;
  const mark = () => {
    waiting = false;
    let current = null;
    for (const message of document.querySelectorAll(".message.user")) {
      if (message.getBoundingClientRect().top > window.innerHeight / 3) break;
      current = message;
    }
    const link = current && byId(`t-${current.dataset.message}`)?.querySelector("a");
    for (const held of toc.querySelectorAll("[aria-current]")) if (held !== link) held.removeAttribute("aria-current");
    link?.setAttribute("aria-current", "true");
  };
  window.addEventListener(
    "scroll",
    () => {
      if (!waiting) requestAnimationFrame(mark);
      waiting = true;
    },
    { passive: true },
  );
  mark();
}

// A prompt or a permalink whose message is on the page needs no other page.
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element && event.target.closest("a[href*='?at=']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const id = decodeURIComponent(new URL(link.href).hash.slice(1));
  const target = byId(id);
  if (!target || !link.getAttribute("href")?.startsWith("?")) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  target.scrollIntoView({ behavior: "instant" });
});

// More of a part, in its place
document.addEventListener("click", async (event) => {
  const link = event.target instanceof Element && event.target.closest("a.show-all");
  const part = link && link.closest("#messages .part");
  if (!part || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  try {
    const whole = parse(await fetchText(link.href)).querySelector(".part");
    if (whole) inPlace(() => replace(part, whole));
  } catch {
    location.href = link.href;
  }
});

// Changes

/** @param {HTMLElement} changes */
function changesPage(changes) {
  let waiting = 0;
  follow(changes, (update) => {
    const tabs = update.tabs && parse(update.tabs).firstElementChild;
    if (!tabs && !update.isReset) return;
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      try {
        const newer = new DOMParser().parseFromString(await fetchText(location.href), "text/html");
        const list = newer.getElementById("changes");
        const closed = new Set([...document.querySelectorAll(".file-diff details:not([open])")].map((each) => each.querySelector("h2")?.textContent));
        for (const each of list?.querySelectorAll(".file-diff details") ?? []) each.open = !closed.has(each.querySelector("h2")?.textContent);
        if (list && list.innerHTML !== changes.innerHTML) inPlace(() => changes.replaceChildren(...list.childNodes));
      } catch {
        // the next update brings it
      }
    }, 300);
  });
}

// The list of sessions

/** @param {HTMLElement} list */
function sessionsPage(list) {
  const form = document.querySelector("form.search");
  const input = byId("q");
  if (!(form instanceof HTMLFormElement) || !(input instanceof HTMLInputElement)) return;
  let latest = 0;
  let typing = 0;
  const address = () => {
    const query = new URLSearchParams(location.search);
    query.delete("notice");
    return query;
  };
  const refresh = async () => {
    const number = ++latest;
    const query = address();
    query.set("fragment", "1");
    try {
      const html = await fetchText(`?${query}`);
      if (number !== latest || list.contains(document.activeElement) || list.querySelector(".undo")) return;
      const newer = document.createElement("div");
      newer.append(parse(html));
      if (newer.innerHTML !== list.innerHTML) list.replaceChildren(...newer.childNodes);
    } catch {
      // it is tried again
    }
  };
  input.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      const query = new URLSearchParams();
      for (const [name, value] of new FormData(form)) if (typeof value === "string" && value.trim()) query.set(name, value.trim());
      history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
      refresh();
    }, 150);
  });
  list.addEventListener("click", async (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const button = target?.closest(".copy-link");
    if (button instanceof HTMLElement) {
      const link = new URL(button.dataset.link ?? "", location.href).href;
      button.textContent = (await copy(link)) ? "Copied" : "Not copied";
      setTimeout(() => (button.textContent = "Copy link"), 1500);
      return;
    }
    const remove = target?.closest("a.delete");
    if (!(remove instanceof HTMLAnchorElement) || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    deleteLater(remove);
  });
  setInterval(() => {
    if (document.visibilityState === "visible") refresh();
  }, 4000);
  form.querySelector(":scope > button")?.classList.add("hidden");
}

/** Deletes a session in a few seconds, unless that is taken back; at once if the page is left.
 * @param {HTMLAnchorElement} link */
function deleteLater(link) {
  const row = link.closest("li");
  if (!row) return;
  const held = [...row.children];
  const told = document.createElement("span");
  told.className = "undo";
  told.setAttribute("role", "status");
  told.textContent = `Deleted: ${row.querySelector(".row-title")?.textContent ?? ""}`;
  const undo = document.createElement("button");
  undo.type = "button";
  undo.textContent = "Undo";
  row.replaceChildren(told, undo);
  undo.focus();
  const finish = async () => {
    clearTimeout(timer);
    window.removeEventListener("pagehide", finish);
    undo.remove();
    try {
      const answer = await fetch(link.href, { method: "POST", keepalive: true, redirect: "manual" });
      if (answer.type === "opaqueredirect") row.remove();
      else throw new Error(String(answer.status));
    } catch {
      told.remove();
      row.replaceChildren(...held);
      link.textContent = "Not deleted: try again";
    }
  };
  const timer = setTimeout(finish, 6000);
  window.addEventListener("pagehide", finish);
  undo.addEventListener("click", () => {
    clearTimeout(timer);
    window.removeEventListener("pagehide", finish);
    row.replaceChildren(...held);
    link.focus();
  });
}

// Keys: j and k go from message to message, / to the search, ? is left to the browser

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))) return;
  if (event.key === "/" && byId("q")) {
    event.preventDefault();
    byId("q")?.focus();
    return;
  }
  if (event.key !== "j" && event.key !== "k") return;
  const stops = [...document.querySelectorAll(".message:not(.continued), .file-diff, .rows .row")];
  const edge = 90;
  const active = document.activeElement instanceof Element ? stops.indexOf(document.activeElement) : -1;
  let next;
  if (active >= 0) next = stops[active + (event.key === "j" ? 1 : -1)];
  else if (event.key === "j") next = stops.find((stop) => stop.getBoundingClientRect().top > edge);
  else next = stops.findLast((stop) => stop.getBoundingClientRect().top < edge - 40);
  if (!(next instanceof HTMLElement)) return;
  if (!next.matches("a")) next.tabIndex = -1;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: next.matches("a") ? "nearest" : "start", behavior: "instant" });
});

// Beginning

const messages = byId("messages");
const changes = byId("changes");
const list = byId("list");
addCopyButtons(document);
if (messages) sharePage(messages);
if (changes) changesPage(changes);
if (list) sessionsPage(list);

// The link that the server prints at its start: its secret is in the fragment, and is sent with the form.
const once = /^#once=([\w-]+)$/.exec(location.hash);
const secretField = document.querySelector('input[name="once"]');
if (once && secretField) {
  history.replaceState(null, "", location.pathname);
  secretField.disabled = false;
  secretField.value = once[1];
  secretField.form.submit();
}
