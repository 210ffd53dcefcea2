// The rows of the overview: which are shown, and in which order. Reads the table once; touches only what changes.
"use strict";
class Rows {
  constructor() {
    this.body = document.querySelector("table.rows tbody");
    this.lines = [...this.body.rows];
    this.order = this.lines;
    this.cases = [...document.querySelectorAll("table.cases tbody tr")].map((line) => ({
      line,
      cells: [...line.querySelectorAll("a.cell")].map((cell) => [cell, Number(cell.dataset.row)]),
    }));
    this.heads = [...document.querySelectorAll("table.rows [data-sort]")];
    this.texts = this.lines.map((line) => {
      const name = line.querySelector(".case");
      return `${name.textContent} ${name.firstElementChild.title} ${line.dataset.cause}`.toLowerCase();
    });
  }

  // Returns how many rows match: every word of the text, one of the outcomes, and each chosen value.
  filter({ text = "", outcome = "", ...chosen }) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const outcomes = outcome ? outcome.split(",") : [];
    const names = ["cause", "engine", "axis", "size"].filter((name) => chosen[name]);
    const shown = this.lines.map(({ dataset }, place) =>
      (!outcomes.length || outcomes.includes(dataset.outcome)) &&
      names.every((name) => dataset[name] === chosen[name]) &&
      words.every((word) => this.texts[place].includes(word)));
    const hide = (element, is) => element.hidden === is || (element.hidden = is);
    this.lines.forEach((line, place) => hide(line, !shown[place]));
    for (const { line, cells } of this.cases) {
      for (const [cell, place] of cells) hide(cell, !shown[place]);
      hide(line, !cells.some(([, place]) => shown[place]));
    }
    return shown.filter(Boolean).length;
  }

  // Sorts by a column; lines without a value stay at the end. No column: as written, worst first.
  sort(name, direction) {
    const column = this.heads.findIndex((head) => head.dataset.sort === name) + 1;
    for (const head of this.heads) {
      const sorted = column && head.dataset.sort === name;
      head.parentElement.ariaSort = sorted ? (direction === "down" ? "descending" : "ascending") : "none";
    }
    let order = this.lines;
    if (column) {
      const sign = direction === "down" ? -1 : 1;
      const valued = this.lines.map((line) => [line, this.value(line.cells[column])]);
      const known = valued.filter(([, value]) => value !== null);
      known.sort(([, a], [, b]) => sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true })));
      order = [...known, ...valued.filter(([, value]) => value === null)].map(([line]) => line);
    }
    if (order.some((line, place) => line !== this.order[place])) this.body.append(...order);
    this.order = order;
  }

  value(cell) {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "–" || (cell.classList.contains("number") && !/\d/.test(text)) ? null : text;
  }
}
