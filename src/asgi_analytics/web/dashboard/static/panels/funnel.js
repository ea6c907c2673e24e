// The button that adds a step to the form of a funnel.
const MOST = 20;

export function growFunnel() {
  const form = document.querySelector("form.builder");
  const add = form?.querySelector(".add");
  if (!add || add.dataset.ready) return;
  add.dataset.ready = "yes";
  add.addEventListener("click", () => {
    const steps = form.querySelector(".steps");
    const number = steps.children.length + 1;
    const step = steps.lastElementChild.cloneNode(true);
    for (const input of step.querySelectorAll("input, select")) {
      input.name = input.name.replace(/\d+$/, number);
      input.value = "";
    }
    step.querySelector("label").firstChild.data = `Step ${number} `;
    steps.append(step);
    step.querySelector("input").focus();
    add.hidden = number >= MOST;
  });
}
