// The heads of a table sort its rows: figures by their value, texts by the alphabet, what is not there last.
export function sortTables() {
  for (const head of document.querySelectorAll("span.sort")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(button.closest("th")));
    head.replaceWith(button);
  }
}

function sort(head) {
  const table = head.closest("table");
  const place = head.cellIndex;
  const first = head.classList.contains("n") ? "descending" : "ascending";
  const second = first === "ascending" ? "descending" : "ascending";
  const order = head.ariaSort === first ? second : first;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.ariaSort = order;
  const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[place]), row]);
  rows.sort(([one], [other]) => compare(one, other, order === "ascending" ? 1 : -1));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function value(cell) {
  const figure = cell.querySelector("data");
  if (figure) return Number(figure.value);
  const time = cell.querySelector("time");
  if (time) return Date.parse(time.dateTime);
  const text = (cell.querySelector("code, span") ?? cell).textContent.trim();
  return text === "" || text === "\u2013" ? null : text;
}

function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "string" && typeof other === "string") return sign * one.localeCompare(other);
  return sign * (Number(one) - Number(other));
}
