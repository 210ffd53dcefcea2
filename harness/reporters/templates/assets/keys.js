// Keyboard: one table of keys for a page, and a dialog that lists them.
"use strict";
function listenToKeys(keys) {
  const dialog = document.createElement("dialog");
  dialog.className = "keys";
  const list = document.createElement("dl");
  for (const [names, words] of keys.map((key) => [key.shown ?? key.names.join(" "), key.words])) {
    const [name, meaning] = [document.createElement("dt"), document.createElement("dd")];
    name.textContent = names;
    meaning.textContent = words;
    list.append(name, meaning);
  }
  const title = document.createElement("h2");
  title.textContent = "Keys";
  dialog.append(title, list);
  document.body.append(dialog);
  const toggle = () => (dialog.open ? dialog.close() : dialog.showModal());
  dialog.addEventListener("click", () => dialog.close());
  const help = document.querySelector("[data-help]");
  help.hidden = false;
  help.addEventListener("click", toggle);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest?.("input:not([type=checkbox]), select, textarea");
    if (field) {
      if (event.key === "Escape") field.blur();
      return;
    }
    if (event.key === "?") return toggle();
    if (dialog.open) return;
    const key = keys.find((some) => some.names.includes(event.key));
    if (!key || (event.key === " " && event.target.closest?.("button, a, summary, label"))) return;
    event.preventDefault();
    key.act(event.key);
  });
}
