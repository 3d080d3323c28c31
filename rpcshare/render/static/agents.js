// Pages of workspaces and agents beyond being read. Everything here has a link or a form that does without.

/** @param {string} id @returns {HTMLElement | null} */
const byId = (id) => document.getElementById(id);

// A page that waits for something: it is asked for again, until it leads elsewhere

const waiting = document.querySelector("[data-poll]");
if (waiting instanceof HTMLElement) {
  const look = async () => {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (answer.redirected) {
        location.replace(answer.url);
        return;
      }
      const newer = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!newer.querySelector("[data-poll]")) {
        location.reload();
        return;
      }
    } catch {
      // it is tried again
    }
    setTimeout(look, Number(waiting.dataset.poll));
  };
  setTimeout(look, Number(waiting.dataset.poll));
}

// A form that is sent says so, and is sent once

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || event.defaultPrevented || form.method !== "post") return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "1";
  const button = event.submitter;
  if (form.dataset.busy && button instanceof HTMLButtonElement) button.textContent = form.dataset.busy;
});
// Whoever comes back to the page may send it again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// A link to something folded opens it

function unfold() {
  const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView({ block: "start" });
  }
}
window.addEventListener("hashchange", unfold);
unfold();

// The list of agents is asked for again while somebody looks at it

const list = byId("agents");
if (list) {
  setInterval(async () => {
    if (document.visibilityState !== "visible" || list.contains(document.activeElement)) return;
    const query = new URLSearchParams(location.search);
    query.set("fragment", "1");
    try {
      const answer = await fetch(`?${query}`, { credentials: "same-origin" });
      if (!answer.ok) return;
      const newer = new DOMParser().parseFromString(await answer.text(), "text/html").body;
      if (newer.innerHTML.trim() !== list.innerHTML.trim()) list.replaceChildren(...newer.childNodes);
    } catch {
      // it is tried again
    }
  }, Number(list.dataset.refresh));
}

// The panel of an agent: it is replaced piece by piece, but for what somebody is typing into

const panel = byId("agent");

/** What is asked keeps its place, and what has been entered into it.
 * @param {HTMLElement} held @param {HTMLElement} newer */
function mergeRequests(held, newer) {
  const there = new Map([...newer.querySelectorAll(".ask")].map((each) => [each.id, each]));
  for (const card of [...held.querySelectorAll(".ask")]) {
    if (there.has(card.id)) there.get(card.id).replaceWith(card);
  }
  const focused = document.activeElement;
  held.replaceChildren(...newer.childNodes);
  if (focused instanceof HTMLElement && held.contains(focused)) focused.focus({ preventScroll: true });
}

/** @param {HTMLElement} held @param {HTMLElement} newer */
function mergeSection(held, newer) {
  if (held.isEqualNode(newer)) return;
  if (held.id === "agent-requests") {
    const ids = (each) => [...each.children].map((child) => child.id).join();
    if (ids(held) !== ids(newer)) mergeRequests(held, newer);
    return;
  }
  // A field that has been changed, or is being, is not taken away.
  const active = document.activeElement;
  const isTyped = [...held.querySelectorAll("input[type=text]")].some((each) => each.value !== each.defaultValue);
  if (isTyped || (held.contains(active) && active?.matches("input, select, textarea"))) return;
  const opened = [...held.querySelectorAll("details[open]")].map((each) => each.id);
  const isFocused = active === held;
  const hadFocus = held.contains(active) ? active?.textContent : null;
  held.replaceWith(newer);
  if (isFocused) newer.focus({ preventScroll: true });
  for (const id of opened) {
    const details = byId(id);
    if (details instanceof HTMLDetailsElement) details.open = true;
  }
  if (hadFocus != null) [...newer.querySelectorAll("button, summary, a")].find((each) => each.textContent === hadFocus)?.focus({ preventScroll: true });
}

if (panel) {
  const title = document.title;
  let asked = panel.querySelectorAll(".ask").length;
  let under = null;
  let again = false;

  const look = async () => {
    if (under) {
      again = true;
      return under;
    }
    under = (async () => {
      do {
        again = false;
        const answer = await fetch(panel.dataset.panel ?? "", { credentials: "same-origin" });
        if ([401, 403, 404].includes(answer.status)) end();
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        apply(new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("agent"));
      } while (again);
    })();
    try {
      await under;
    } catch {
      // the next event, or the next look, brings it
    } finally {
      under = null;
    }
  };

  /** @param {HTMLElement | null} newer */
  const apply = (newer) => {
    if (!newer) return;
    // Read out where it stays: a region that is put anew into a page is not.
    const asks = newer.querySelectorAll(".ask").length;
    const news = `${newer.querySelector(".state")?.textContent ?? ""}${asks ? `: ${asks} to answer` : ""}`;
    for (const id of ["agent-state", "agent-requests", "agent-queue", "agent-controls"]) {
      const held = byId(id);
      const found = newer.querySelector(`#${id}`);
      if (held && found instanceof HTMLElement) mergeSection(held, found);
    }
    const said = byId("agent-said");
    if (said && (panel.dataset.status !== newer.dataset.status || asks > asked)) said.textContent = news;
    asked = asks;
    if (!newer.querySelector("#composer")) byId("composer")?.remove();
    const nonce = newer.querySelector("[name=nonce]");
    const content = byId("message");
    const heldNonce = panel.querySelector("[name=nonce]");
    // What is half written keeps its own: it may be under way.
    if (heldNonce && nonce && content && !content.value) heldNonce.value = nonce.value;
    panel.dataset.status = newer.dataset.status;
    panel.dataset.events = newer.dataset.events;
    mark();
  };

  /** A page that lies behind others says in its title that somebody has to answer. */
  const mark = () => {
    const count = panel.querySelectorAll(".ask").length;
    document.title = count ? `(${count}) ${title}` : title;
  };
  mark();

  // A browser has six HTTP connections to a server, and a stream keeps one: only of a page that is looked at.
  // A phone that wakes may have a stream that is dead without knowing, or open one that never answers.
  const SILENT = 40000;
  let source = null;
  let fallback = 0;
  let heardAt = 0;
  const connect = () => {
    if (source || isEnded || document.visibilityState !== "visible") return;
    heardAt = Date.now();
    source = new EventSource(panel.dataset.liveEvents ?? "");
    const hear = () => {
      heardAt = Date.now();
      clearInterval(fallback);
      fallback = 0;
    };
    source.onopen = hear;
    source.addEventListener("alive", hear);
    source.onmessage = ({ data }) => {
      hear();
      if (data !== panel.dataset.events) look();
    };
    source.addEventListener("ended", end);
    source.onerror = () => {
      if (source?.readyState === EventSource.CLOSED) {
        leave();
        setTimeout(connect, 5000);
      }
      // A proxy may hold streams back.
      if (!fallback) fallback = setInterval(() => document.visibilityState === "visible" && look(), 5000);
    };
  };
  setInterval(() => {
    if (!source || Date.now() - heardAt < (source.readyState === EventSource.OPEN ? SILENT : 10000)) return;
    leave();
    connect();
    look();
  }, 2000);
  let isEnded = false;
  /** The right to steer it is gone: what is on the page stays, and says so. */
  const end = () => {
    if (isEnded) return;
    isEnded = true;
    leave();
    const told = document.createElement("p");
    told.className = "notice wrong";
    told.setAttribute("role", "alert");
    told.textContent = "This page is not live any more: your sign-in may have ended. Load it again.";
    panel.prepend(told);
  };
  const leave = () => {
    source?.close();
    source = null;
    clearInterval(fallback);
    fallback = 0;
  };
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") {
      leave();
      return;
    }
    connect();
    if (!isEnded) look();
  });
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", connect);
  connect();

  // Forms without leaving the page
  panel.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!(form instanceof HTMLFormElement) || !("live" in form.dataset)) return;
    event.preventDefault();
    if (form.dataset.sending) return;
    form.dataset.sending = "1";
    const body = new FormData(form, event.submitter);
    const problem = problemOf(form);
    problem.hidden = true;
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        body: form.enctype === "multipart/form-data" ? body : new URLSearchParams([...body].map(([name, value]) => [name, String(value)])),
        credentials: "same-origin",
        redirect: "manual",
      });
      if (answer.type !== "opaqueredirect") throw new Error(await toldBy(answer));
      if ("composer" in form.dataset) form.reset();
      else removeCard(form.closest(".ask"));
      for (const details of form.closest("details") ? [form.closest("details")] : []) details.open = false;
      for (const input of form.querySelectorAll("input[type=text]")) input.defaultValue = input.value;
    } catch (error) {
      problem.textContent = error instanceof TypeError ? "The server cannot be reached. Nothing is lost: try again." : error.message;
      problem.hidden = false;
    } finally {
      delete form.dataset.sending;
    }
    look();
  });

  /** The focus goes on to what is asked next, and not to the page's start.
   * @param {Element | null} card */
  const removeCard = (card) => {
    if (!card) return;
    const hadFocus = card.contains(document.activeElement);
    card.remove();
    const next = panel.querySelector(".ask h3") ?? byId("agent-state");
    if (!hadFocus || !(next instanceof HTMLElement)) return;
    next.tabIndex = -1;
    next.focus({ preventScroll: true });
  };

  /** @param {HTMLFormElement} form @returns {HTMLElement} where it says what went wrong */
  const problemOf = (form) => {
    let held = form.querySelector("[role=alert]");
    if (!(held instanceof HTMLElement)) {
      held = document.createElement("p");
      held.className = "hint wrong";
      held.setAttribute("role", "alert");
      form.append(held);
    }
    return held;
  };

  /** @param {Response} answer @returns {Promise<string>} what its page says */
  const toldBy = async (answer) => {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const line = page.querySelector("main p.line, main [role=alert], main p:not(.code-number)");
    return line?.textContent?.trim() || `It could not be done (${answer.status}).`;
  };

  // Ctrl or ⌘ with Enter sends
  byId("message")?.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    byId("composer")?.requestSubmit();
  });
}
