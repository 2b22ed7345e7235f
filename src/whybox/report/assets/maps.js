// The maps: how much of the map and of the picture is seen, the class to compare with, reading a point.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // From 0, the picture alone, over 50, both in full, to 100, the map alone.
  const sliders = all(".mixer input[type=range]");
  const mix = (value) => {
    root.style.setProperty("--over", Math.min(1, value / 50));
    root.style.setProperty("--under", Math.min(1, (100 - value) / 50));
    sliders.forEach((slider) => { slider.value = value; slider.setAttribute("aria-valuetext", `${value} of 100 towards the map`); });
  };
  sliders.forEach((slider) => slider.addEventListener("input", () => mix(Number(slider.value))));
  if (sliders.length) { mix(Number(sliders[0].defaultValue)); }
  const greys = all(".grey input");
  const grey = (on) => { root.classList.toggle("in-colour", !on); greys.forEach((box) => { box.checked = on; }); };
  greys.forEach((box) => box.addEventListener("change", () => grey(box.checked)));
  if (greys.length) { grey(true); }

  all(".contrast").forEach((contrast) => {
    const menu = contrast.querySelector("select");
    const choose = () => all(".option", contrast).forEach((option) => option.classList.toggle("chosen", option.dataset.class === menu.value));
    menu.selectedIndex = 0;
    menu.addEventListener("change", choose);
    choose();
  });

  // A map's opacity is |R| / limit and its colour the sign, so the picture itself can be read.
  const pixels = new WeakMap();
  const read = (stage, x, y) => {
    const image = stage.querySelector(".over");
    if (!image.naturalWidth) { return null; }
    if (!pixels.has(image)) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      pixels.set(image, context.getImageData(0, 0, canvas.width, canvas.height));
    }
    const data = pixels.get(image);
    const at = 4 * (Math.min(Math.floor(y * data.height), data.height - 1) * data.width + Math.min(Math.floor(x * data.width), data.width - 1));
    const sign = stage.dataset.signed === "1" && data.data[at + 2] > data.data[at] ? -1 : 1;
    return sign * data.data[at + 3] / 255;
  };
  const say = (stage, x, y) => {
    const share = read(stage, x, y);
    if (share === null) { return ""; }
    const limit = Number(stage.dataset.limit);
    const column = Math.min(Math.floor(x * stage.dataset.width), stage.dataset.width - 1);
    const row = Math.min(Math.floor(y * stage.dataset.height), stage.dataset.height - 1);
    const value = Number((Math.abs(share) * limit).toPrecision(2));
    const sign = share < 0 ? "−" : share > 0 && stage.dataset.signed === "1" ? "+" : "";
    return `x ${column}, y ${row}: ${stage.dataset.quantity} ${Math.abs(share) === 1 ? "beyond" : "≈"} ${sign}${value}, ${Math.round(100 * Math.abs(share))}\u202f% of full colour`;
  };

  all(".picture").forEach((picture) => {
    const stages = all(".stage", picture);
    const spot = { x: 0.5, y: 0.5 };
    const point = (x, y) => {
      [spot.x, spot.y] = [Math.min(Math.max(x, 0), 1), Math.min(Math.max(y, 0), 1)];
      stages.forEach((stage) => {
        const cross = stage.querySelector(".cross");
        cross.hidden = false;
        cross.style.left = `${100 * spot.x}%`;
        cross.style.top = `${100 * spot.y}%`;
        const out = stage.closest("figure").querySelector(".readout");
        out.textContent = say(stage, spot.x, spot.y);
      });
    };
    const leave = () => stages.forEach((stage) => {
      stage.querySelector(".cross").hidden = true;
      const out = stage.closest("figure").querySelector(".readout");
      out.textContent = "";
    });
    stages.forEach((stage) => {
      stage.tabIndex = 0;
      stage.setAttribute("aria-label", `${stage.getAttribute("aria-label")}; arrow keys read it point by point`);
      const move = (event) => {
        const box = stage.getBoundingClientRect();
        point((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
      };
      stage.addEventListener("pointermove", move);
      stage.addEventListener("pointerdown", move);
      stage.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") { leave(); } });
      stage.addEventListener("blur", leave);
      stage.addEventListener("keydown", (event) => {
        const step = event.shiftKey ? 10 : 1;
        const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
        if (x || y) {
          event.preventDefault();
          point(spot.x + (x * step) / stage.dataset.width, spot.y + (y * step) / stage.dataset.height);
          const out = stage.closest("figure").querySelector(".readout");
          out.setAttribute("aria-live", "polite");
        }
      });
    });
  });
})();
