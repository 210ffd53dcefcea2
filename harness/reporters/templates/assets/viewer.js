// Controls of the viewer: buttons, keys and address drive one state, which drives the stage.
"use strict";
class Viewer {
  constructor(section) {
    this.section = section;
    this.state = new ViewerState(JSON.parse(document.getElementById("viewer-data").textContent));
    this.stage = new Stage(section.querySelector("[data-stage]"), this.state, (scale) => this.say(scale));
    this.held = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.listen();
    section.hidden = false;
    this.read();
  }

  all(selector) {
    return this.section.querySelectorAll(selector);
  }

  one(selector) {
    return this.section.querySelector(selector);
  }

  read() {
    this.state.read(address.read());
    this.build();
  }

  change(changes) {
    const mode = this.state.mode;
    Object.assign(this.state, changes);
    if (this.state.mode !== mode && changes.slider === undefined) this.state.slider = changes.mode === "difference" ? 25 : 50;
    this.state.choose();
    this.state.write();
    this.build();
  }

  build() {
    const { state } = this;
    const { mode } = state;
    for (const button of this.all("[data-mode]")) button.ariaChecked = String(button.dataset.mode === mode);
    for (const select of this.all("[data-side]")) {
      const layers = state.shown(select.dataset.side === "heat");
      select.replaceChildren(...layers.map((layer) => new Option(layer.title, layer.name)));
      select.value = state[select.dataset.side];
    }
    const choice = this.one("[data-picture-select]");
    choice.replaceChildren(...state.data.pictures.map((_, place) => new Option(place + 1, place)));
    choice.value = state.picture;
    const two = ["swipe", "onion", "blink", "difference"].includes(mode);
    const shown = { a: two || mode === "one", b: two, heat: mode === "heat", slider: mode in SLIDERS, blink: mode === "blink", pictures: state.data.pictures.length > 1 };
    for (const [name, is] of Object.entries(shown)) for (const part of this.all(`.with-${name}`)) part.hidden = !is;
    this.one("[data-slider-name]").textContent = SLIDERS[mode] ?? "";
    for (const box of this.all("[data-show]")) {
      box.checked = state[box.dataset.show] === "on";
      box.disabled = mode === "heat" && box.dataset.show === "shards"; // its picture has them drawn in
    }
    this.stage.build();
    this.blink();
    this.mark();
  }

  // Shows B in turn with A; held, the space bar and the button show the other one.
  blink() {
    clearInterval(this.timer);
    this.one("[data-pause]").textContent = this.held ? "Go on" : "Hold";
    if (this.state.mode !== "blink") return;
    const turn = () => this.stage.element.classList.toggle("turned");
    if (!this.held) this.timer = setInterval(turn, 100 + 18 * this.state.slider);
  }

  // Marks the pictures below that are shown above.
  mark() {
    const { mode, picture } = this.state;
    const names = mode === "side" ? this.state.shown(false).map((layer) => layer.name) : this.stage.stack();
    for (const figure of document.querySelectorAll(".layers figure")) {
      const here = Number(figure.parentElement.dataset.picture) === picture;
      figure.classList.toggle("shown", here && names.includes(figure.dataset.layer));
    }
  }

  say(scale) {
    this.one("[data-zoom-text]").value = `${Math.round(scale * 100)} %`;
    const slider = this.one("[data-slider]");
    slider.value = this.state.slider;
    const layer = this.state.layer(this.state.heat);
    this.one("[data-say]").textContent = this.state.mode === "heat" && layer ? layer.caption : "";
  }

  zoom(how) {
    if (how === "fit") this.stage.move(0.5, 0.5, "fit");
    else if (how === "one") this.stage.zoom(1 / this.stage.scale);
    else this.stage.zoom(how === "in" ? Math.SQRT2 : Math.SQRT1_2);
  }

  toggle(name) {
    this.change({ [name]: this.state[name] === "on" ? "off" : "on", slider: this.state.slider });
  }

  next(side, by = 1) {
    const names = this.state.shown(side === "heat").map((layer) => layer.name);
    this.change({ [side]: names[(names.indexOf(this.state[side]) + by + names.length) % names.length] });
  }

  swap() {
    this.change({ a: this.state.b, b: this.state.a });
  }

  pause() {
    if (this.state.mode !== "blink") return;
    this.held = !this.held;
    this.blink();
  }

  // A picture below is shown here: a difference as heat map, with Shift as B, else as A.
  pick(figure, shift) {
    const { layer } = figure.dataset;
    const picture = Number(figure.parentElement.dataset.picture);
    const found = this.state.data.pictures[picture]?.find(({ name }) => name === layer);
    if (!found?.file) return false;
    const mode = found.heat ? "heat" : ["side", "heat"].includes(this.state.mode) ? "one" : this.state.mode;
    this.change({ picture, mode, [found.heat ? "heat" : shift ? "b" : "a"]: layer });
    this.section.scrollIntoView({ block: "nearest" });
    return true;
  }

  listen() {
    this.section.addEventListener("click", ({ target }) => {
      const { mode, zoom, swap, pause } = target.closest("button")?.dataset ?? {};
      if (mode) this.change({ mode });
      if (zoom) this.zoom(zoom);
      if (swap !== undefined) this.swap();
      if (pause !== undefined) this.pause();
    });
    this.section.addEventListener("input", ({ target }) => {
      if (target.dataset.side) this.change({ [target.dataset.side]: target.value });
      if (target.dataset.pictureSelect !== undefined) this.change({ picture: Number(target.value) });
      if (target.dataset.show) this.toggle(target.dataset.show);
      if (target.dataset.slider !== undefined) {
        this.state.slider = Number(target.value);
        this.stage.place();
        this.state.write();
        this.blink();
      }
    });
    document.addEventListener("click", (event) => {
      const figure = event.target.closest(".layers figure");
      if (figure && !event.ctrlKey && !event.metaKey && event.target.closest("a") && this.pick(figure, event.shiftKey)) event.preventDefault();
    });
    addEventListener("hashchange", () => this.read());
  }
}
