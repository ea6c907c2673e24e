// Keeps a page fresh: its content is fetched again as the server makes it. What someone is using is left alone.
const SECONDS = 5;
const CAN_HAVE_FOCUS = "a[href], button, summary, input, select, [tabindex]";

export function stayLive(redraw) {
  if (new URLSearchParams(location.search).get("live") !== "1") return;
  const status = document.getElementById("status");
  const refresh = async () => {
    const panels = document.querySelector(".panels");
    const focused = panels.contains(document.activeElement) ? document.activeElement : null;
    const inUse = focused?.matches("input, select, textarea") || panels.querySelector("details[open], :popover-open");
    if (!document.hidden && !inUse) {
      try {
        const answer = await fetch(location.href);
        if (answer.status === 401) { location.reload(); return; }
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.querySelector(".panels");
        if (fresh) {
          const place = [...panels.querySelectorAll(CAN_HAVE_FOCUS)].indexOf(focused);
          panels.replaceWith(document.adoptNode(fresh));
          redraw();
          if (place >= 0) fresh.querySelectorAll(CAN_HAVE_FOCUS)[place]?.focus({ preventScroll: true });
        }
        if (status.textContent) status.textContent = "";
      } catch {
        status.textContent = "The page cannot be refreshed: the service does not answer.";
      }
    }
    setTimeout(refresh, SECONDS * 1000);
  };
  setTimeout(refresh, SECONDS * 1000);
}
