// The button that changes between light and dark.
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;

const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);

export function offerTheme(redraw) {
  const button = document.getElementById("theme");
  if (!button) return;
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  name();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("asgi-analytics-theme", root.dataset.theme); } catch { /* it lasts as long as the page */ }
    name();
    redraw();
  });
  dark.addEventListener("change", () => { name(); redraw(); });
}
