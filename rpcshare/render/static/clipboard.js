// Copying text.

/** Copies text; where a page came over plain HTTP there is no clipboard, but the older way works.
 * @param {string} text */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    area.readOnly = true;
    const focused = document.activeElement;
    // What is outside of an open dialog cannot be selected.
    (focused?.closest("dialog[open]") ?? document.body).append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
    return isCopied;
  }
}

/** Copies text, and says so on a button: in its text, or beside its picture.
 * @param {HTMLElement} button @param {string} text */
export async function copyFor(button, text) {
  const said = (await copy(text)) ? "Copied" : "Not copied";
  const label = button.dataset.label ?? (button.dataset.label = button.textContent.trim());
  if (label) button.textContent = said;
  else button.dataset.said = said;
  setTimeout(() => {
    if (label) button.textContent = label;
    else delete button.dataset.said;
  }, 1500);
}
