// The colours that the reader has chosen, before anything is drawn.
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("rpcshare-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // no storage: the system's
}
