// What the labelling page does in the browser: keys, the name in the address, frames that arrive late.
"use strict";

const p2r = (() => {
  const UNDO = { z: "p2r-undo", backspace: "p2r-undo" };
  const ANSWER_MILLISECONDS = 3000; // after this without an answer a key counts again
  const fragments = new Map(); // row -> promise of its frames, this row's and the next one's
  let sent = { card: null, at: 0 };

  // What each key presses; the labels are those of this kind of audit.
  const keys = () => ({ ...JSON.parse(card().dataset.keys), ...UNDO });
  const card = () => document.querySelector(".p2r-card");
  const reasonField = () => document.querySelector("#p2r-reason textarea, #p2r-reason input");
  const isWaiting = () =>
    sent.card !== null && sent.card === card()?.dataset.shown &&
    performance.now() - sent.at < ANSWER_MILLISECONDS;

  function press(id) {
    if (!card() || isWaiting()) return;
    const button = document.getElementById(id);
    const target = button?.matches("button") ? button : button?.querySelector("button");
    target?.click();
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
    const field = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (field) {
      if (event.key === "Escape" || (event.key === "Enter" && field === reasonField())) field.blur();
      return;
    }
    const key = event.key.toLowerCase();
    if (!card() || !(key in keys() || key === "r" || key === " ")) return;
    event.preventDefault();
    if (key in keys()) press(keys()[key]);
    else if (key === "r") reasonField()?.focus();
    else playOrPause();
  }

  function playOrPause() {
    const video = document.querySelector(".p2r-media video");
    if (video) video.paused ? video.play().catch(() => {}) : video.pause();
  }

  function fragment(row) {
    if (!fragments.has(row)) {
      const asked = fetch(`rows/${row}/frames`).then((reply) => {
        if (!reply.ok) throw new Error(`the server says ${reply.status}`);
        return reply.text();
      });
      asked.catch(() => fragments.delete(row));
      fragments.set(row, asked);
    }
    return fragments.get(row);
  }

  // The frames go into the element that asked for them: a row that was left meanwhile gets none.
  async function fillMedia(element, shown) {
    const { row, nextRow } = shown.dataset;
    for (const known of fragments.keys()) if (known !== row && known !== nextRow) fragments.delete(known);
    try {
      element.innerHTML = await fragment(row);
    } catch (error) {
      element.textContent = `The frames could not be fetched (${error.message}). Reload the page.`;
      return;
    }
    for (const video of element.querySelectorAll("video")) {
      video.addEventListener("error", () => {
        video.hidden = true;
        video.parentElement.querySelector(".p2r-unplayable").hidden = false;
      });
    }
    if (nextRow !== "") fragment(nextRow).catch(() => {});
  }

  function onClick(event) {
    const frame = event.target.closest?.(".p2r-frames button");
    if (!frame) return;
    const video = frame.closest(".p2r-medium").querySelector("video:not([hidden])");
    if (video) {
      video.pause();
      video.currentTime = Number(frame.dataset.seek);
    } else {
      frame.classList.toggle("large");
    }
  }

  function onChange() {
    const shown = card();
    const media = shown?.querySelector(".p2r-media:not([data-asked])");
    if (!media) return;
    media.dataset.asked = "yes";
    window.scrollTo(0, 0);
    document.activeElement?.blur?.();
    fillMedia(media, shown);
  }

  function send(item) {
    const shown = card();
    sent = { card: shown?.dataset.shown ?? null, at: performance.now() };
    return [shown?.dataset.annotator ?? "", item ?? "", reasonField()?.value ?? ""];
  }

  new MutationObserver(onChange).observe(document.documentElement, { childList: true, subtree: true });
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", onClick);
  onChange();

  return {
    rememberName(name) {
      history.replaceState(null, "", `?annotator=${encodeURIComponent(name)}`);
      return name;
    },
    onPage: () => send(card()?.dataset.item),
    lastOnPage: () => send(card()?.dataset.last),
  };
})();
window.p2r = p2r;
