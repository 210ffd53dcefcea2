// The page's state in its address: "#name=value&...", so that a link shows what was seen.
"use strict";
const address = {
  read() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  },
  // Values that are empty or equal to their default are left out.
  write(state, defaults = {}) {
    const kept = Object.entries(state).filter(([name, value]) => value !== "" && String(value) !== String(defaults[name] ?? ""));
    const hash = new URLSearchParams(kept.map(([name, value]) => [name, String(value)])).toString();
    if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  },
};
