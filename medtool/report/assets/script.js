"use strict";
// Tables sort by the column whose head is pressed: numbers by value, the rest by name.
document.querySelectorAll("table.sortable").forEach(function (table) {
  table.querySelectorAll("thead button").forEach(function (button) {
    button.addEventListener("click", function () {
      const head = button.closest("th");
      const column = Array.prototype.indexOf.call(head.parentNode.children, head);
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const key = function (row) { return row.children[column].dataset.value || ""; };
      const compare = function (a, b) {
        const x = key(a), y = key(b);
        if (x === "" || y === "") { return (x === "") - (y === ""); }
        const p = Number(x), q = Number(y);
        const order = isNaN(p) || isNaN(q) ? x.localeCompare(y, undefined, { numeric: true }) : p - q;
        return down ? -order : order;
      };
      Array.from(body.rows).sort(compare).forEach(function (row) { body.appendChild(row); });
    });
  });
});
