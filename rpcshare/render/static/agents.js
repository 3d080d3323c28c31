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
