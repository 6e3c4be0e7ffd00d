// Labelling by keys: a key answers (or checks) its label, / filters, Enter takes or saves, s skips, u takes back, ? helps.
"use strict";
(() => {
  const find = (selector) => document.querySelector(selector);
  const filter = find("#filter"), help = find("#help"), answer = find("#answer");
  const choices = [...document.querySelectorAll(".choice")];
  let sent = false, at = -1;

  const send = (form, button) => {
    if (!form || sent) return;
    form.requestSubmit(button);
  };
  document.addEventListener("submit", (event) => {
    if (sent) event.preventDefault(); // a second key before the next row is there would answer this one anew
    sent = true;
  });
  addEventListener("pageshow", () => { sent = false; });

  const take = (choice) => {
    if (!choice) return;
    if (choice.matches("button")) { send(answer, choice); return; }
    const box = choice.querySelector("input");
    box.checked = !box.checked;
  };
  const seen = () => choices.filter((choice) => !choice.hidden);
  const mark = (place) => {
    const open = seen();
    at = open.length ? (place + open.length) % open.length : -1;
    choices.forEach((choice) => choice.classList.toggle("at", choice === open[at]));
    if (at >= 0) open[at].scrollIntoView({ block: "nearest" });
  };
  const sift = () => {
    const words = filter.value.trim().toLowerCase();
    choices.forEach((choice) => { choice.hidden = !choice.querySelector("span").textContent.toLowerCase().includes(words) && words !== ""; });
    find(".nothing").hidden = seen().length > 0;
    mark(words ? 0 : -1);
    if (!words) choices.forEach((choice) => choice.classList.remove("at"));
  };
  const leave = () => { filter.value = ""; sift(); filter.blur(); };

  if (filter) {
    filter.hidden = false;
    filter.addEventListener("input", sift);
    if ("many" in filter.dataset) filter.focus();
  }

  const inFilter = (event) => {
    if (event.key === "Escape") leave();
    else if (event.key === "ArrowDown") mark(at + 1);
    else if (event.key === "ArrowUp") mark(at - 1);
    else if (event.key === "Enter") {
      if (filter.value.trim() === "" && at < 0) { if (choices.some((c) => c.matches("label"))) send(answer); }
      else { take(seen()[Math.max(at, 0)]); if (!sent) { filter.value = ""; sift(); } }
    } else return false;
    return true;
  };
  const onPage = (event) => {
    const key = event.key;
    if (key === "?") help.open = !help.open;
    else if (key === "/" && filter) filter.focus();
    else if (key === "u") send(find("#undo"));
    else if (key === "s") send(find("#skip"));
    else if (key === "Enter" && choices.some((c) => c.matches("label")) && !event.target.closest("a, button, summary")) send(answer);
    else {
      const choice = choices.find((one) => one.dataset.key !== "" && one.dataset.key === key);
      if (!choice) return false;
      take(choice);
    }
    return true;
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !help || (event.repeat && event.target !== filter)) return;
    const target = event.target;
    const writes = target.matches("textarea, select, input:not([type=checkbox])");
    if (target === filter ? inFilter(event) : !writes && onPage(event)) event.preventDefault();
  });
})();
