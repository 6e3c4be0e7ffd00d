// Puts fresh content in place every few seconds, unless somebody is writing, choosing or reading an opened part.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.refresh || 0);
  if (!seconds) return;
  const busy = () => {
    const at = document.activeElement;
    return document.hidden || (at && at.closest("form, details, summary") !== null) || document.querySelector("details[open]:not(.given)") !== null;
  };
  setInterval(async () => {
    if (busy()) return;
    try {
      const reply = await fetch(location.pathname, { credentials: "same-origin", headers: { accept: "text/html" } });
      if (reply.redirected) { location.reload(); return; }
      if (!reply.ok || busy()) return;
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").querySelector("main");
      if (fresh) document.querySelector("main").replaceWith(fresh);
      document.body.classList.remove("stale");
    } catch { document.body.classList.add("stale"); }
  }, seconds * 1000);
})();
