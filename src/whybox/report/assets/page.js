// Theme, pictures, copying.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  const button = document.querySelector(".theme");
  const themes = { "": "as the system has them", light: "light", dark: "dark" };
  const remember = (theme) => { try { localStorage.setItem("whybox-theme", theme); } catch { /* not kept then */ } };
  const recall = () => { try { return localStorage.getItem("whybox-theme"); } catch { return ""; } };
  const wear = (theme) => {
    if (theme) { root.dataset.theme = theme; } else { delete root.dataset.theme; }
    button.setAttribute("aria-label", `Colours: ${themes[theme]}`);
    button.title = `Colours: ${themes[theme]}`;
  };
  const worn = () => root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  wear(recall() in themes ? recall() : "");
  button.addEventListener("click", () => {
    const theme = worn() === "dark" ? "light" : "dark";
    wear(theme);
    remember(theme);
  });

  const pictures = all(".picture");
  const links = all(".pictures a");
  const show = (place) => {
    pictures.forEach((picture, i) => picture.classList.toggle("chosen", i === place));
    links.forEach((link, i) => i === place ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
    if (links[place]) { links[place].scrollIntoView({ block: "nearest", inline: "nearest" }); }
  };
  const follow = () => {
    const named = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    const place = named ? pictures.findIndex((picture) => picture.contains(named)) : -1;
    if (place >= 0) {
      show(place);
      if (named === pictures[place]) { scrollTo(0, 0); } else { named.scrollIntoView(); }
    }
  };
  show(0);
  follow();
  addEventListener("hashchange", follow);
  links.forEach((link, i) => link.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = step && links[(i + step + links.length) % links.length];
    if (next) { event.preventDefault(); next.focus(); next.click(); }
  }));

  all(".copy").forEach((copy) => copy.addEventListener("click", async () => {
    const code = copy.closest(".code").querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "copied";
    } catch { // no clipboard here: mark the text instead
      getSelection().selectAllChildren(code);
      copy.textContent = "selected";
    }
    setTimeout(() => { copy.textContent = "copy"; }, 1600);
  }));
})();
