(function (w, d) {
  var n = w.navigator, l = d.location, s = d.currentScript, to = (s.src || "").replace(/[^/]*$/, "e");
  var start = l.pathname, page, shown, ms = 0, since = 0;
  w.analytics = { track: function () {} };
  if (n.webdriver || !/^http/.test(l.protocol) || !(s instanceof HTMLScriptElement)) return;
  function send(event, properties, referrer) {
    var body = JSON.stringify({ event: event, page: page, referrer: referrer, properties: properties });
    try { if (n.sendBeacon(to, body)) return; } catch (e) {}
    fetch(to, { method: "POST", body: body, keepalive: true }).catch(function () {});
  }
  function resume() { if (d.visibilityState == "visible") since = since || Date.now(); }
  function leave() {
    if (since) ms += Date.now() - since;
    if (ms > 0) send("page_engaged", { visible_ms: ms });
    ms = since = 0;
  }
  function view(silent, referrer) {
    if (shown == l.pathname) return;
    if (shown) leave();
    shown = l.pathname;
    page = (shown == start && s.dataset.page || shown) + l.search;
    silent || send("page_view", undefined, referrer);
    resume();
  }
  ["pushState", "replaceState"].forEach(function (name) {
    var original = history[name];
    history[name] = function () { var r = original.apply(this, arguments); view(); return r; };
  });
  w.addEventListener("popstate", function () { view(); });
  w.addEventListener("pageshow", function (e) { if (e.persisted) { shown = 0; view(); } });
  w.addEventListener("pagehide", leave);
  d.addEventListener("visibilitychange", function () { d.visibilityState == "hidden" ? leave() : resume(); });
  d.addEventListener("click", function (e) {
    var t = e.target, a = t.closest && t.closest("[data-event]");
    if (a) send(a.dataset.event);
    a = t.closest && t.closest("a[href]");
    if (a && a.host != l.host && /^http/.test(a.protocol)) send("outbound_link_clicked", { host: a.hostname });
  }, true);
  w.analytics.track = function (name, properties) { send(name, properties); };
  function begin() { view(__SILENT__, d.referrer); }
  d.prerendering ? d.addEventListener("prerenderingchange", begin, { once: true }) : begin();
})(window, document);
