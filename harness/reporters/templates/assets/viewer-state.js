// State of the viewer: what is shown of which pictures, how large and where. Kept in the address.
"use strict";
const MODES = ["one", "side", "swipe", "onion", "blink", "difference", "heat"];
const SLIDERS = { swipe: "line at", onion: "B at", blink: "seconds", difference: "brightness" };
const LARGEST_ZOOM = 64;

class ViewerState {
  constructor(data) {
    this.data = data;
    this.defaults = { mode: "swipe", picture: 0, zoom: "fit", x: 0.5, y: 0.5, shards: "on", tiles: "on", slider: 50 };
    Object.assign(this, this.defaults);
    this.choose();
  }

  get layers() {
    return this.data.pictures[this.picture] ?? this.data.pictures[0];
  }

  shown(heat) {
    return this.layers.filter((layer) => layer.file && layer.heat === heat);
  }

  // Fills in sides that are not chosen, or have no picture: replay beside candidate, the worst difference.
  choose() {
    const pictures = this.shown(false).map((layer) => layer.name);
    const first = (wanted) => wanted.find((name) => pictures.includes(name)) ?? pictures[0] ?? "";
    this.defaults.a = first(["replay", "baseline", "golden"]);
    this.defaults.b = first(["candidate", "baseline"]);
    this.defaults.heat = this.shown(true)[0]?.name ?? "";
    for (const side of ["a", "b"]) if (!pictures.includes(this[side])) this[side] = this.defaults[side];
    if (!this.shown(true).some((layer) => layer.name === this.heat)) this.heat = this.defaults.heat;
  }

  // Relation of what is compared, whose worst tile is outlined; the first there is where single pictures are looked at.
  get relation() {
    const pairs = { "replay candidate": "exchange", "baseline replay": "layout", "baseline candidate": "pair", "golden candidate": "golden-candidate" };
    if (this.mode === "heat") return this.heat;
    if (["one", "side"].includes(this.mode)) return this.data.tiles[0]?.name ?? "";
    return pairs[`${this.a} ${this.b}`] ?? pairs[`${this.b} ${this.a}`] ?? "";
  }

  layer(name) {
    return this.layers.find((layer) => layer.name === name && layer.file);
  }

  read(values) {
    Object.assign(this, this.defaults, { a: this.defaults.a, b: this.defaults.b, heat: this.defaults.heat });
    for (const [name, value] of Object.entries(values)) {
      const known = this.defaults[name];
      if (known === undefined) continue;
      if (name === "zoom") this.zoom = value === "fit" ? "fit" : clamp(Number(value) || 1, 1 / LARGEST_ZOOM, LARGEST_ZOOM);
      else if (typeof known === "number") this[name] = Number.isFinite(Number(value)) ? Number(value) : known;
      else this[name] = value;
    }
    if (!MODES.includes(this.mode)) this.mode = this.defaults.mode;
    this.picture = clamp(Math.round(this.picture), 0, this.data.pictures.length - 1);
    this.slider = clamp(this.slider, 0, 100);
    this.choose();
  }

  write() {
    const names = ["mode", "picture", "a", "b", "heat", "slider", "zoom", "x", "y", "shards", "tiles"];
    const round = (value) => (typeof value === "number" ? Math.round(value * 1e4) / 1e4 : value);
    address.write(Object.fromEntries(names.map((name) => [name, round(this[name])])), this.defaults);
  }
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
