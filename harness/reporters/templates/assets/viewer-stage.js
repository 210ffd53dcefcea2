// The stage: panes of pictures, one over the other, that zoom and pan in step, with outlines on top.
"use strict";
const SVG = "http://www.w3.org/2000/svg";

class Stage {
  constructor(element, state, changed) {
    Object.assign(this, { element, state, changed });
    [this.width, this.height] = state.data.size;
    this.panes = [];
    new ResizeObserver(() => this.place()).observe(element);
    this.listen();
  }

  // Builds the panes of a mode anew; pictures are loaded only now.
  build() {
    const { state, element } = this;
    const side = state.mode === "side";
    const names = side ? state.shown(false).map((layer) => layer.name) : [state.mode];
    element.className = `stage ${state.mode}`;
    element.style.setProperty("--columns", this.columns(names.length));
    this.panes = names.map((name) => this.pane(side ? [name] : this.stack()));
    element.replaceChildren(...this.panes);
    if (state.mode === "swipe" && state.layer(state.a)) this.panes[0].append(this.line());
    if (!this.panes.some((pane) => pane.querySelector("img"))) {
      const words = document.createElement("p");
      words.className = "absent";
      words.textContent = state.mode === "heat" ? "No difference has a picture: see the words below." : "There is no picture here: see the words below.";
      element.replaceChildren(words);
    }
    this.place();
  }

  // Number of columns in which that many panes show the pictures largest.
  columns(count) {
    const { clientWidth, clientHeight } = this.element;
    const scale = (columns) => Math.min(clientWidth / columns / this.width, clientHeight / Math.ceil(count / columns) / this.height);
    const numbers = Array.from({ length: count }, (_, place) => place + 1);
    return numbers.reduce((best, columns) => (scale(columns) > scale(best) ? columns : best), 1);
  }

  stack() {
    const { mode, a, b, heat } = this.state;
    return mode === "heat" ? [heat] : mode === "one" ? [a] : [a, b];
  }

  pane(names) {
    const pane = document.createElement("div");
    pane.className = "pane";
    const mix = document.createElement("div");
    mix.className = "mix";
    pane.append(mix);
    names.forEach((name, place) => {
      const layer = this.state.layer(name);
      if (!layer) return;
      const holder = document.createElement("div");
      holder.className = `layer ${place ? "b" : "a"}`;
      const image = document.createElement("img");
      image.src = `../${layer.file}`;
      image.alt = `${layer.title}, ${layer.caption}`;
      image.draggable = false;
      image.decoding = "async";
      image.classList.toggle("smooth", layer.reduced);
      const canvas = this.canvas();
      canvas.append(image);
      holder.append(canvas);
      mix.append(holder);
      pane.append(this.name(layer, place));
    });
    const outlines = this.canvas();
    outlines.append(this.outlines());
    pane.append(outlines);
    return pane;
  }

  canvas() {
    const canvas = document.createElement("div");
    canvas.className = "canvas";
    canvas.style.width = `${this.width}px`;
    canvas.style.height = `${this.height}px`;
    return canvas;
  }

  name(layer, place) {
    const words = document.createElement("span");
    words.className = `name ${place ? "b" : "a"}`;
    words.textContent = layer.title;
    return words;
  }

  line() {
    const line = document.createElement("div");
    line.className = "line";
    return line;
  }

  outlines() {
    const { shards, tiles } = this.state.data;
    const drawing = make("svg", { viewBox: `0 0 ${this.width} ${this.height}`, class: "outlines" });
    const box = ({ x, y, width, height, label }, kind) => {
      const text = make("text", { x, y: kind === "shard" ? y + height : y });
      text.textContent = label;
      const group = make("g", { class: kind });
      group.append(make("rect", { x, y, width, height }), text);
      return group;
    };
    const marked = tiles.filter((tile) => tile.name === this.state.relation);
    drawing.append(...shards.map((shard) => box(shard, "shard")), ...marked.map((tile) => box(tile, "tile")));
    return drawing;
  }

  get scale() {
    const { clientWidth, clientHeight } = this.panes[0] ?? this.element;
    const fit = Math.min(clientWidth / this.width, clientHeight / this.height);
    return this.state.zoom === "fit" ? fit || 1 : this.state.zoom;
  }

  // Puts every pane's pictures where the state says, without building anything.
  place() {
    const { state, element } = this;
    const { clientWidth, clientHeight } = this.panes[0] ?? element;
    const scale = this.scale;
    const [x, y] = state.zoom === "fit" ? [0.5, 0.5] : [state.x, state.y];
    const style = element.style;
    style.setProperty("--scale", scale);
    style.setProperty("--left", `${clientWidth / 2 - x * this.width * scale}px`);
    style.setProperty("--top", `${clientHeight / 2 - y * this.height * scale}px`);
    style.setProperty("--at", state.slider / 100);
    style.setProperty("--gain", 2 ** (state.slider * 0.08));
    element.classList.toggle("pixels", scale >= 2);
    element.classList.toggle("no-shards", state.shards !== "on");
    element.classList.toggle("no-tiles", state.tiles !== "on");
    this.changed(scale);
  }

  // Zooms so that the point of the first pane, or its middle, stays where it is.
  zoom(factor, point) {
    const { clientWidth, clientHeight } = this.panes[0] ?? this.element;
    const old = this.scale;
    const scale = clamp(old * factor, 1 / LARGEST_ZOOM, LARGEST_ZOOM);
    const [dx, dy] = point ? [point[0] - clientWidth / 2, point[1] - clientHeight / 2] : [0, 0];
    const [x, y] = this.state.zoom === "fit" ? [0.5, 0.5] : [this.state.x, this.state.y];
    this.move(x + (dx / old - dx / scale) / this.width, y + (dy / old - dy / scale) / this.height, scale);
  }

  pan(dx, dy) {
    const scale = this.scale;
    const [x, y] = this.state.zoom === "fit" ? [0.5, 0.5] : [this.state.x, this.state.y];
    this.move(x - dx / scale / this.width, y - dy / scale / this.height, scale);
  }

  move(x, y, zoom) {
    Object.assign(this.state, { x: clamp(x, 0, 1), y: clamp(y, 0, 1), zoom });
    this.place();
    this.state.write();
  }

  listen() {
    const { element } = this;
    const inPane = (event) => {
      const boxes = this.panes.map((pane) => pane.getBoundingClientRect());
      const box = boxes.find(({ left, right, top, bottom }) =>
        event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom) ?? boxes[0];
      return [event.clientX - box.left, event.clientY - box.top, box];
    };
    let drag = null;
    element.addEventListener("pointerdown", (event) => {
      if (event.button || !this.panes.length) return;
      const [px, , box] = inPane(event);
      const swiping = this.state.mode === "swipe" && Math.abs(px - (this.state.slider / 100) * box.width) < 16;
      drag = { x: event.clientX, y: event.clientY, swiping, box };
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointermove", (event) => {
      if (!drag) return;
      if (drag.swiping) {
        this.state.slider = clamp(Math.round((100 * (event.clientX - drag.box.left)) / drag.box.width), 0, 100);
        this.place();
        this.state.write();
      } else this.pan(event.clientX - drag.x, event.clientY - drag.y);
      Object.assign(drag, { x: event.clientX, y: event.clientY });
    });
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => (drag = null));
    element.addEventListener("dblclick", (event) => {
      if (!this.panes.length) return;
      if (this.state.zoom === "fit") this.zoom(4, inPane(event).slice(0, 2));
      else this.move(0.5, 0.5, "fit");
    });
    element.addEventListener("wheel", (event) => {
      if ((!event.ctrlKey && !event.metaKey) || !this.panes.length) return;
      event.preventDefault();
      this.zoom(2 ** (-event.deltaY / 240), inPane(event).slice(0, 2));
    }, { passive: false });
  }
}

function make(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
