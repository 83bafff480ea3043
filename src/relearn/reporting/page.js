// What a page of relearn does beside showing: sort tables, switch curves, read them out, open the record of a link.
"use strict";

const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

// A third click gives the order of the page back. Gaps stay last; equal rows keep their order.
function sort(table, column, order) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.forEach((row, place) => (row.dataset.place ??= place));
  rows.sort((a, b) => a.dataset.place - b.dataset.place);
  if (order !== "none") {
    const numeric = table.tHead.rows[0].cells[column].classList.contains("number");
    const key = (row) => {
      const cell = row.cells[column];
      return numeric ? (cell.dataset.sort === undefined ? null : Number(cell.dataset.sort)) : cell.textContent;
    };
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (numeric ? x - y : x.localeCompare(y, "en", { numeric: true }));
    });
  }
  body.append(...rows);
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    head.setAttribute("aria-sort", place === column ? order : "none");
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      sort(table, column, NEXT[head.getAttribute("aria-sort")]);
    });
  });
}

// A curve shows while the boxes of its method, its poison and its seed are ticked.
const boxes = [...document.querySelectorAll(".switches input")];

function show() {
  const off = boxes.filter((box) => !box.checked).map((box) => [box.dataset.axis, box.value]);
  for (const curve of document.querySelectorAll(".curve")) {
    curve.classList.toggle("off", off.some(([axis, value]) => curve.dataset[axis] === value));
  }
  for (const panel of document.querySelectorAll(".panel")) {
    panel.classList.toggle("off", off.some(([axis, value]) => axis === "poison" && panel.dataset.poison === value));
  }
}

for (const box of boxes) box.addEventListener("change", show);
for (const button of document.querySelectorAll(".switches button")) {
  button.addEventListener("click", () => {
    for (const box of button.closest("fieldset").querySelectorAll("input")) box.checked = button.dataset.all === "all";
    show();
  });
}
if (boxes.length) show(); // browsers restore ticks when a page is loaded again

// The point of a curve that is nearest to the pointer, in words beneath the panel.
function nearest(svg, event) {
  const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  let best = null;
  for (const curve of svg.querySelectorAll(".curve:not(.off)")) {
    const drawn = curve.firstElementChild;
    const points = drawn.points ? [...drawn.points] : [{ x: drawn.cx.baseVal.value, y: drawn.cy.baseVal.value }];
    for (const { x, y } of points) {
      const far = Math.hypot(x - place.x, y - place.y);
      if (!best || far < best.far) best = { far, x, y, curve };
    }
  }
  return best;
}

for (const panel of document.querySelectorAll(".panel")) {
  const svg = panel.querySelector("svg");
  const words = panel.querySelector(".readout");
  const [left, right, top, bottom, last] = ["left", "right", "top", "bottom", "last"].map((key) => Number(svg.dataset[key]));
  const clear = () => {
    svg.querySelector(".near")?.classList.remove("near");
    words.textContent = "\u00a0";
  };
  svg.addEventListener("pointerleave", clear);
  svg.addEventListener("pointermove", (event) => {
    clear();
    const found = nearest(svg, event);
    if (!found) return;
    found.curve.classList.add("near");
    const epoch = last > 1 ? Math.round(1 + ((found.x - left) / (right - left)) * (last - 1)) : 1;
    const percent = (100 * (bottom - found.y)) / (bottom - top);
    const { method, seed } = found.curve.dataset;
    words.textContent = `${method}, seed ${seed}, epoch ${epoch}: ${percent.toFixed(1)} %`;
  });
}

// A link to a record opens it; one to the records of several seeds opens all of them.
function open() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target?.id.startsWith("cell-")) return;
  for (const one of target.matches("details") ? [target] : target.querySelectorAll("details")) one.open = true;
}

addEventListener("hashchange", open);
open();
