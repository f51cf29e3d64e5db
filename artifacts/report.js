// Without this script every step's picture is shown; with it, one at a time, chosen by a slider below.
"use strict";
for (const group of document.querySelectorAll("[data-steps]")) {
  const figures = [...group.querySelectorAll("figure")];
  const control = group.querySelector(".control");
  const range = control.querySelector("input");
  const names = [...control.querySelectorAll("span")];
  const show = () => {
    const now = Number(range.value);
    figures.forEach((figure, step) => { figure.hidden = step !== now; });
    names.forEach((name, step) => name.classList.toggle("now", step === now));
    range.setAttribute("aria-valuetext", names[now].textContent);
  };
  range.addEventListener("input", show);
  names.forEach((name, step) => name.addEventListener("click", () => { range.value = step; show(); }));
  group.classList.add("sliding");
  control.hidden = false;
  show();
}
