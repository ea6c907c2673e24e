// Sets the theme before anything is drawn. It is the reader's own, so it is kept in the browser, not in the URL.
const kept = (() => { try { return localStorage.getItem("asgi-analytics-theme"); } catch { return null; } })();
if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
document.documentElement.classList.add("js");
