// The way from the picture to a contrast: one slider for each, with the probabilities of each place.
(() => {
  "use strict";
  document.querySelectorAll(".morph").forEach((morph) => {
    const slider = morph.querySelector("input");
    const rows = [...morph.querySelectorAll(".bars li")];
    const shares = JSON.parse(morph.dataset.shares);
    const go = () => {
      const here = shares[Number(slider.value)];
      morph.style.setProperty("--frame", slider.value);
      rows.forEach((row, i) => {
        row.querySelector(".share").textContent = here[i].percent;
        row.querySelector(".track span").style.width = `${100 * here[i].share}%`;
      });
      slider.setAttribute("aria-valuetext", here.map((one) => `${one.label} ${one.percent}`).join(", "));
    };
    slider.value = slider.defaultValue;
    slider.addEventListener("input", go);
    go();
  });
})();
