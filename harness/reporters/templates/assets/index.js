// The overview: filters, views and order follow the controls, the keys and the address.
"use strict";
(() => {
  if (!document.querySelector("table.rows tbody tr")) return;
  const FILTERS = ["text", "cause", "engine", "axis", "size"];
  const DEFAULTS = { view: "pictures" };
  const rows = new Rows();
  const form = document.getElementById("filters");
  const section = document.getElementById("rows");
  let state = {};

  function show() {
    const view = state.view ?? DEFAULTS.view;
    section.dataset.view = view;
    section.classList.toggle("differences", state.differences === "on");
    for (const button of form.querySelectorAll("[data-view]")) button.ariaChecked = String(button.dataset.view === view);
    for (const name of FILTERS) if (form.elements[name]) form.elements[name].value = state[name] ?? "";
    const outcomes = (state.outcome ?? "").split(",");
    for (const box of form.querySelectorAll("[name=outcome]")) box.checked = outcomes.includes(box.value);
    form.elements.differences.checked = state.differences === "on";
    const count = rows.filter(state);
    const all = rows.lines.length;
    form.querySelector("[data-count]").value = count === all ? `${all} rows` : `${count} of ${all} rows`;
    form.querySelector("[data-clear]").hidden = count === all;
    section.querySelector(".none").hidden = count > 0;
    rows.sort(state.sort, state.order);
  }

  function change(changes) {
    state = { ...state, ...changes };
    address.write(state, DEFAULTS);
    show();
  }

  function read() {
    state = address.read();
    show();
  }

  form.addEventListener("input", ({ target }) => {
    if (target.name === "outcome") {
      const chosen = [...form.querySelectorAll("[name=outcome]:checked")].map((box) => box.value);
      change({ outcome: chosen.join(",") });
    } else if (target.name === "differences") change({ differences: target.checked ? "on" : "" });
    else if (target.name) change({ [target.name]: target.value });
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  section.addEventListener("click", ({ target }) => {
    const { view, sort, clear } = target.closest("button")?.dataset ?? {};
    if (view) change({ view });
    if (clear !== undefined) change(Object.fromEntries([...FILTERS, "outcome"].map((name) => [name, ""])));
    if (sort) {
      const next = state.sort !== sort ? "up" : state.order === "up" ? "down" : "";
      change({ sort: next && sort, order: next });
    }
  });
  addEventListener("hashchange", read);

  function step(by) {
    const links = [...section.querySelectorAll((state.view ?? DEFAULTS.view) === "table" ? "td.case a" : "a.cell")];
    const open = links.filter((link) => link.offsetParent);
    const place = open.indexOf(document.activeElement);
    open[Math.max(0, Math.min(open.length - 1, place + by))]?.focus();
  }
  listenToKeys([
    { names: ["/"], words: "search", act: () => form.elements.text.focus() },
    { names: ["v"], words: "pictures or table", act: () => change({ view: section.dataset.view === "table" ? "pictures" : "table" }) },
    { names: ["d"], words: "differences in place of pictures", act: () => change({ differences: state.differences === "on" ? "" : "on" }) },
    { names: ["j"], words: "next row (Enter opens it)", act: () => step(1) },
    { names: ["k"], words: "previous row", act: () => step(-1) },
    { names: ["c"], words: "clear the filters", act: () => form.querySelector("[data-clear]").click() },
  ]);
  form.hidden = false;
  read();
})();
