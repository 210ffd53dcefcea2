// The page of a row: the viewer, and the keys.
"use strict";
(() => {
  const section = document.getElementById("viewer");
  const viewer = section ? new Viewer(section) : null;
  const follow = (name) => document.querySelector(`[data-${name}]`)?.click();
  const pan = { ArrowLeft: [80, 0], ArrowRight: [-80, 0], ArrowUp: [0, 80], ArrowDown: [0, -80] };
  const ofViewer = viewer ? [
    { names: MODES.map((_, place) => String(place + 1)), shown: `1 … ${MODES.length}`, words: "view", act: (key) => viewer.change({ mode: MODES[key - 1] }) },
    { names: ["a"], words: "next picture as A", act: () => viewer.next("a") },
    { names: ["b"], words: "next picture as B", act: () => viewer.next("b") },
    { names: ["x"], words: "swap A and B", act: () => viewer.swap() },
    { names: ["h"], words: "next heat map", act: () => viewer.next("heat") },
    { names: [" "], shown: "space", words: "hold the blinking, or go on", act: () => viewer.pause() },
    { names: ["+", "="], shown: "+", words: "larger", act: () => viewer.zoom("in") },
    { names: ["-"], words: "smaller", act: () => viewer.zoom("out") },
    { names: ["0"], words: "whole picture", act: () => viewer.zoom("fit") },
    { names: ["9"], words: "one pixel a pixel", act: () => viewer.zoom("one") },
    { names: ["s"], words: "shards and pads", act: () => viewer.toggle("shards") },
    { names: ["t"], words: "worst tile", act: () => viewer.toggle("tiles") },
    { names: ["n"], words: "next picture of the batch", act: () => viewer.change({ picture: (viewer.state.picture + 1) % viewer.state.data.pictures.length }) },
  ] : [];
  listenToKeys([
    ...ofViewer,
    { names: ["j"], words: "next row", act: () => follow("following") },
    { names: ["k"], words: "previous row", act: () => follow("previous") },
    { names: ["u"], words: "overview", act: () => follow("up") },
  ]);
  // Arrows move the picture where it has the focus, and scroll the page elsewhere.
  viewer?.stage.element.addEventListener("keydown", (event) => {
    if (!pan[event.key]) return;
    event.preventDefault();
    viewer.stage.pan(...pan[event.key]);
  });
})();
