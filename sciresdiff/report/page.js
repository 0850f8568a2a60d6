"use strict";
document.documentElement.classList.add("js");

// One view for all pictures: x, y (shares of a picture) and k, kept as CSS variables of the box around them.
const box = document.querySelector(".viewer");
const view = { x: 0, y: 0, k: 1 };
const MOST = 40;
const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
function show() {
  view.k = clamp(view.k, 1, MOST);
  view.x = clamp(view.x, 1 - view.k, 0);
  view.y = clamp(view.y, 1 - view.k, 0);
  for (const name of ["x", "y", "k"]) box.style.setProperty("--" + name, view[name]);
  box.classList.toggle("zoomed", view.k > 1);
}
function zoom(factor, x = 0.5, y = 0.5) {
  const k = clamp(view.k * factor, 1, MOST);
  view.x = x - (x - view.x) * k / view.k;
  view.y = y - (y - view.y) * k / view.k;
  view.k = k;
  show();
}
function reset() { Object.assign(view, { x: 0, y: 0, k: 1 }); show(); }
function place(pane, event) {
  const r = pane.getBoundingClientRect();
  return [(event.clientX - r.left) / r.width, (event.clientY - r.top) / r.height];
}

function mouse(pane) {
  const fingers = new Map();
  pane.addEventListener("wheel", event => {
    const out = event.deltaY > 0;
    if (performance.now() - scrolled < 250 || (out && view.k <= 1)) return;  // the page is being scrolled past
    event.preventDefault();
    zoom(Math.exp(-clamp(event.deltaY, -60, 60) / 150), ...place(pane, event));
  }, { passive: false });
  pane.addEventListener("pointerdown", event => {
    fingers.set(event.pointerId, place(pane, event));
    if (view.k > 1 || fingers.size > 1) pane.setPointerCapture(event.pointerId);
  });
  pane.addEventListener("pointermove", event => {
    const now = place(pane, event);
    box.style.setProperty("--cx", now[0]);
    box.style.setProperty("--cy", now[1]);
    box.classList.toggle("live", event.pointerType === "mouse");
    const before = fingers.get(event.pointerId);
    if (!before) return;
    if (fingers.size === 1) { view.x += now[0] - before[0]; view.y += now[1] - before[1]; show(); }
    fingers.set(event.pointerId, now);
    if (fingers.size === 2) pinch(fingers, event.pointerId, before);
  });
  for (const end of ["pointerup", "pointercancel"]) pane.addEventListener(end, event => fingers.delete(event.pointerId));
  pane.addEventListener("pointerleave", () => box.classList.remove("live"));
  pane.addEventListener("dblclick", event => view.k > 1 ? reset() : zoom(4, ...place(pane, event)));
}
function pinch(fingers, moved, before) {
  const other = [...fingers].find(([id]) => id !== moved)[1];
  const now = fingers.get(moved);
  const gap = p => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1e-6;
  zoom(gap(now) / gap(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
}

const KEYS = {
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": reset, Escape: reset,
  ArrowLeft: () => { view.x += 0.15; show(); }, ArrowRight: () => { view.x -= 0.15; show(); },
  ArrowUp: () => { view.y += 0.15; show(); }, ArrowDown: () => { view.y -= 0.15; show(); },
};

let scrolled = -1000;
if (box) {
  addEventListener("scroll", () => { scrolled = performance.now(); }, { passive: true });
  box.querySelectorAll(".window").forEach(mouse);
  box.querySelectorAll(".set").forEach(set => set.addEventListener("keydown", event => {
    if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey || event.target !== set) return;
    event.preventDefault();
    KEYS[event.key]();
  }));
  const buttons = box.querySelectorAll("[data-show]");
  const pick = name => {
    buttons.forEach(b => b.setAttribute("aria-pressed", String(b.dataset.show === name)));
    box.querySelectorAll(".set").forEach(set => { set.hidden = set.dataset.set !== name; });
    reset();
  };
  buttons.forEach(button => button.addEventListener("click", () => pick(button.dataset.show)));
  if (buttons.length) pick(buttons[0].dataset.show);
  const act = { in: () => zoom(1.5), out: () => zoom(1 / 1.5), reset };
  box.querySelectorAll("[data-act]").forEach(b => b.addEventListener("click", () => act[b.dataset.act]()));
  box.querySelectorAll("[data-hide]").forEach(tick => {
    const set = () => box.classList.toggle("hide-" + tick.dataset.hide, !tick.checked);
    tick.addEventListener("change", set);
    set();
  });
  box.querySelectorAll(".plate button").forEach(b => b.addEventListener("click", () => {
    const big = b.closest(".plate").classList.toggle("big");
    b.setAttribute("aria-pressed", String(big));
  }));
  show();
}

// On paper everything is unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach(d => { d.open = true; });
});
addEventListener("afterprint", () => folded.forEach(d => { d.open = false; }));
