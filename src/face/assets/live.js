// Puts what changed in its place. Everything is readable without this: a reload shows the same.
(() => {
  const main = document.querySelector("main[data-live]");
  const say = document.getElementById("live");
  if (!main || !window.EventSource) return;
  const host = say.textContent;
  const news = document.getElementById("news");
  const later = new Map();
  const typing = (box) => {
    const at = document.activeElement;
    return at && box.contains(at) && at.matches("input, select, textarea");
  };
  const made = (html) => {
    const box = document.createElement("template");
    box.innerHTML = html;
    return box.content.firstElementChild;
  };
  const put = (id, html) => {
    // The name of a tab in the background says how it stands.
    if (id === "title") return void (document.title = made(html).textContent);
    const old = document.getElementById(id);
    if (!old) return;
    // Nobody's words are taken from under the fingers.
    if (typing(old)) return void later.set(id, html);
    later.delete(id);
    const fresh = made(html);
    // A screen reader is told of what stands otherwise now, and of nothing else.
    const lead = (section) => section.querySelector(".lead")?.textContent.trim();
    if (lead(fresh) && lead(fresh) !== lead(old)) news.textContent = lead(fresh);
    for (const open of old.querySelectorAll("details[open][id]")) {
      const same = fresh.querySelector("#" + CSS.escape(open.id));
      if (same) same.open = true;
    }
    const at = document.activeElement;
    const focus = at && old.contains(at) ? at.id || at.closest("details")?.id : "";
    old.replaceWith(fresh);
    if (focus) {
      const same = document.getElementById(focus);
      (same?.matches("details") ? same.querySelector("summary") : same)?.focus();
    }
  };
  document.addEventListener("focusout", () => setTimeout(() => {
    for (const [id, html] of [...later]) {
      if (typing(document.getElementById(id) ?? document.body)) continue;
      later.delete(id);
      put(id, html);
    }
  }));
  const source = new EventSource(main.dataset.live);
  source.onopen = () => { say.textContent = "live · " + host; say.className = "live on"; };
  source.onerror = () => {
    const over = source.readyState === EventSource.CLOSED;
    say.textContent = over ? "not live: reload the page" : "connection lost, trying again";
    say.className = "live off";
  };
  source.onmessage = (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data).sections)) put(id, html);
  };
})();
