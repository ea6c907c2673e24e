// The range and the filters: they take effect when they change, and leave no empty parameter in the URL.
export function followControls() {
  for (const form of document.querySelectorAll("form[method=get]")) form.addEventListener("submit", () => leaveOutEmpty(form));
  document.addEventListener("submit", (event) => { if (event.target.method === "get") leaveOutEmpty(event.target); });
  const controls = document.querySelector("form.controls");
  if (!controls) return;
  const dates = controls.querySelector(".dates");
  const range = controls.elements.range;
  controls.addEventListener("change", (event) => {
    if (event.target === range && range.value === "custom") {
      dates.hidden = false;
      for (const input of dates.querySelectorAll("input")) input.disabled = false;
      dates.querySelector("input").focus();
      return;
    }
    if (range.value === "custom" && !(controls.elements.start.value && controls.elements.end.value)) return;
    if (range.value !== "custom") for (const input of dates.querySelectorAll("input")) input.disabled = true;
    controls.requestSubmit();
  });
  const service = controls.elements.service;
  service.addEventListener("focus", () => offerServices(), { once: true });
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const zones = document.getElementById("zones");
  if (zone && ![...zones.options].some((option) => option.value === zone)) zones.append(new Option("", zone));
}

function leaveOutEmpty(form) {
  const empty = [...form.elements].filter((input) => input.name && !input.disabled && input.value === "");
  for (const input of empty) input.disabled = true;
  // Else a form that one comes back to could not be filled in.
  setTimeout(() => { for (const input of empty) input.disabled = false; });
}

async function offerServices() {
  const answer = await fetch("./data/api/latency?bucket=all");
  if (!answer.ok) return;
  const names = new Set((await answer.json()).map((row) => row.service));
  document.getElementById("services").replaceChildren(...[...names].sort().map((name) => new Option("", name)));
}
