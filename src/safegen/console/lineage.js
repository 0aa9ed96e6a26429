// Draws what the page holds, as /api/v1/lineage gives it, and moves it. Every text goes in as text.
"use strict";
(() => {
  const stage = document.getElementById("stage");
  if (!stage) return;
  const told = document.getElementById("facts-of");
  const asked = new URLSearchParams(location.search);
  const WIDE = 184, HIGH = 52, TOP = 30, LEFT = 26, DEEPEST = 6, HEAD = 34;
  const LEAST = 0.02, MOST = 4, NAMES = 0.45; // scales; below NAMES no name could be read
  const put = (parent, name, facts = {}, says) => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(facts)) one.setAttribute(k, v);
    if (says !== undefined) one.textContent = says;
    parent.append(one);
    return one;
  };
  const many = (n) => n.toLocaleString("en-GB");
  const short = (says, n) => (says.length > n ? says.slice(0, n - 1) + "…" : says);
  const x = (m) => LEFT + m.x * WIDE;
  const y = (m) => TOP + m.y * HIGH;

  let drawn, svg, plane, heads, marks = [], scale = 1, dx = 0, dy = 0;

  // ---- what a mark is -------------------------------------------------------------------

  const to = (m) => {
    if (m.kind === "dataset") return "/datasets/" + encodeURIComponent(m.key);
    if (m.kind !== "group") return null;
    const asks = new URLSearchParams(asked);
    asks.set("at", m.at ?? "");
    asks.set("skip", m.skip);
    return "/lineage?" + asks;
  };
  const around = (m) => {
    const asks = new URLSearchParams();
    asks.set("root", m.key);
    return "/lineage?" + asks;
  };
  const state = (m) => {
    const several = m.kind === "group", n = (k) => (several ? many(k) + " " : "");
    const found = [];
    if (m.withdrawn) {
      found.push(n(m.withdrawn) + (several || m.own ? "withdrawn" : "from withdrawn"));
    }
    if (m.expired) found.push(n(m.expired) + "expired");
    if (m.kind === "missing") found.push("no record");
    else if (m.claimed) found.push(n(m.claimed) + "claimed");
    else if (m.unverified) found.push(n(m.unverified) + "unverified");
    return found;
  };
  const says = (m) => {
    const depth = (m.at_least ? "at least " : "") + m.depth;
    const parts = [m.name, m.origin, "depth " + depth, many(m.rows) + " rows", ...state(m)];
    if (m.registered) parts.push("registered " + m.registered.slice(0, 10));
    if (m.made) parts.push(many(m.made) + " made from it");
    if (m.found) parts.push(m.kind === "group" ? many(m.found) + " found" : "found");
    return parts;
  };

  // ---- drawing --------------------------------------------------------------------------

  const shape = (parent, m, back) => {
    const several = m.kind === "group";
    const r = several ? Math.min(17, 11 + Math.log10(m.count) * 2) : 9;
    const deep = "d" + Math.min(m.depth, DEEPEST);
    const missing = m.kind === "missing" || m.origin === "unknown";
    const kind = `shape ${missing ? "missing" : deep}${m.unverified && !missing && (!several || m.unverified === m.count) ? " doubt" : ""}`;
    const one = (cls, cx, size) => {
      if (m.origin === "real" || missing) {
        const a = size * 0.9;
        put(parent, "rect", { class: cls, x: cx - a, y: -a, width: 2 * a, height: 2 * a });
      } else if (m.origin === "mixed") {
        const a = size * 1.2;
        put(parent, "path", { class: cls, d: `M${cx} ${-a} ${cx + a} 0 ${cx} ${a} ${cx - a} 0Z` });
      } else put(parent, "circle", { class: cls, cx, cy: 0, r: size });
    };
    put(parent, "circle", { class: "halo", r: r + 6 });
    if (several) one(kind, 5, r * 0.85);
    one(kind, 0, r);
    if (several) put(parent, "text", { class: "count", y: 4 }, short(many(m.count), 6));
    if (m.withdrawn && (!several || m.withdrawn === m.count)) {
      const d = `M${-r} ${-r} ${r} ${r}M${r} ${-r} ${-r} ${r}`;
      put(parent, "path", { class: "crossed", d });
      put(parent, "path", { class: "cross", d });
    } else if (m.withdrawn) {
      const d = `M${r - 1} ${-r - 5}l8 8m0 -8l-8 8`;
      put(parent, "path", { class: "crossed", d });
      put(parent, "path", { class: "cross", d });
    }
    if (missing && !several) put(parent, "text", { class: "count", y: 4 }, "?");
    return r;
  };

  const bend = (a, b, kind) => {
    const [x1, y1, x2, y2] = [x(a), y(a), x(b), y(b)];
    if (kind === "backward" || x2 - x1 < 40) {
      const out = 46 + Math.abs(y2 - y1) / 9;
      return `M${x1} ${y1}C${x1 + out} ${y1 + 24} ${x2 - out} ${y2 - 24} ${x2} ${y2}`;
    }
    if (y1 === y2 && (kind === "main" || b.x - a.x < 1.5)) return `M${x1} ${y1}H${x2}`;
    if (kind === "main") {
      const turn = x2 - 34, r = 8, s = y2 > y1 ? 1 : -1;
      return `M${x1} ${y1}H${turn - r}Q${turn} ${y1} ${turn} ${y1 + s * r}V${y2 - s * r}` +
        `Q${turn} ${y2} ${turn + r} ${y2}H${x2}`;
    }
    if (y1 === y2) {
      const up = y1 - Math.min(26, 10 + (x2 - x1) / 60);
      return `M${x1} ${y1}C${x1 + 50} ${up} ${x2 - 50} ${up} ${x2} ${y2}`;
    }
    const half = Math.min((x2 - x1) / 2, 120);
    return `M${x1} ${y1}C${x1 + half} ${y1} ${x2 - half} ${y2} ${x2} ${y2}`;
  };

  const draw = () => {
    const wide = LEFT + drawn.columns.length * WIDE, high = TOP + drawn.rows * HIGH;
    stage.querySelector(".waiting").remove();
    svg = put(stage, "svg", { role: "group", "aria-label": "Lineage graph: columns are depths" });
    plane = put(svg, "g");
    const lanes = put(plane, "g");
    drawn.columns.forEach((_, i) => {
      if (i % 2 === 0) {
        const at = { x: LEFT + i * WIDE - 26, y: -5000, width: WIDE, height: high + 10000 };
        put(lanes, "rect", { class: "lane", ...at });
      }
    });
    const lines = put(plane, "g", { "aria-hidden": "true" });
    const order = { other: 0, main: 1, backward: 2 };
    const sorted = [...drawn.lines].sort((a, b) => order[a.kind] - order[b.kind]);
    for (const line of sorted) {
      const a = drawn.marks[line.source], b = drawn.marks[line.target];
      line.path = put(lines, "path", { class: "line " + line.kind, d: bend(a, b, line.kind) });
    }
    const first = drawn.marks.findIndex((m) => m.found);
    drawn.marks.forEach((m, i) => {
      const href = to(m);
      const g = put(plane, "g", { class: "piece" + (m.found ? " hit" : ""), transform: `translate(${x(m)} ${y(m)})` });
      const a = put(g, "a", { "aria-label": says(m).join(", ") });
      if (href) a.setAttribute("href", href);
      else a.setAttribute("role", "img");
      a.setAttribute("tabindex", i === Math.max(first, 0) ? "0" : "-1");
      const area = put(a, "rect", { class: "area" }), name = short(m.name, m.x % 1 ? 17 : 22);
      const r = shape(a, m);
      put(a, "text", { class: "name", x: -9, y: r + 13 }, name);
      // Between mark and name a pointer hits it, too.
      const box = { x: -r - 4, y: -r - 4, width: Math.max(2 * r + 8, 6.5 * name.length), height: 2 * r + 22 };
      for (const [k, v] of Object.entries(box)) area.setAttribute(k, v);
      const bad = state(m);
      if (bad.length) {
        const tone = m.withdrawn || m.expired ? " bad" : " doubtful";
        put(a, "text", { class: "under" + tone, x: r + 7, y: 14 - r + (m.kind === "group" ? -6 : -8) }, short(bad[0], 20));
      }
      a.addEventListener("focus", () => { tell(i); seen(m); });
      g.addEventListener("pointerenter", (e) => { if (e.pointerType !== "touch") tell(i); });
      a.addEventListener("click", (e) => clicked(e, i));
      marks.push(a);
    });
    heads = put(svg, "g", { class: "heads", "aria-hidden": "true" });
    put(heads, "rect", { x: 0, y: 0, width: 100000, height: 32 });
    put(heads, "path", { d: "M0 32H100000" });
    drawn.columns.forEach((c, i) => {
      const name = c.first === c.last ? `depth ${c.first}` : `depth ${c.first} – ${c.last}`;
      const g = put(heads, "g", { class: "head" });
      const t = put(g, "text", { y: 21 }, name);
      put(t, "tspan", { class: "n" }, "  " + many(c.count));
      g.column = i;
    });
    if (first >= 0) stage.classList.add("searching");
    begin(wide, high, first);
  };

  // ---- details --------------------------------------------------------------------------

  let touched = null, last = null;
  const tell = (i) => {
    const m = drawn.marks[i];
    if (last === i) return;
    last = i;
    told.replaceChildren();
    const [name, ...rest] = says(m);
    const b = document.createElement("b");
    b.textContent = name;
    told.append(b, rest.join(" · "));
    const link = (href, text) => {
      const a = document.createElement("a");
      a.href = href;
      a.textContent = text;
      told.append(a);
    };
    if (to(m)) link(to(m), m.kind === "group" ? "Take apart" : "Its page");
    if (m.key) link(around(m), "Only what it comes from, and what comes from it");
    for (const line of drawn.lines) {
      line.path.classList.toggle("near", line.source === i || line.target === i);
    }
    marks.forEach((a, k) => a.classList.toggle("at", k === i));
  };
  let moved = false;
  const clicked = (e, i) => {
    if (moved) e.preventDefault();
    // A finger has no hover: the first tap tells, the second one opens.
    else if (touched && touched.mark !== i) {
      e.preventDefault();
      tell(i);
    }
    if (touched) touched.mark = i;
  };

  // ---- moving ---------------------------------------------------------------------------

  const place = () => {
    plane.setAttribute("transform", `translate(${dx} ${dy}) scale(${scale})`);
    stage.classList.toggle("far", scale < NAMES);
    // From afar marks grow, so that what they say can still be told.
    svg.style.setProperty("--grown", Math.max(1, Math.min(3, NAMES / scale)));
    for (const g of heads.querySelectorAll(".head")) {
      const at = dx + scale * (LEFT + g.column * WIDE - 12);
      g.setAttribute("transform", `translate(${at} 0)`);
      g.style.display = scale * WIDE < 90 && g.column % Math.ceil(90 / (scale * WIDE)) ? "none" : "";
    }
  };
  const zoom = (by, cx, cy) => {
    const next = Math.min(MOST, Math.max(LEAST, scale * by));
    dx = cx - (cx - dx) * (next / scale);
    dy = cy - (cy - dy) * (next / scale);
    scale = next;
    place();
  };
  const middle = () => [stage.clientWidth / 2, stage.clientHeight / 2];
  let all = 1;
  const fit = () => {
    scale = all;
    dx = Math.max(0, (stage.clientWidth - scale * (LEFT + drawn.columns.length * WIDE)) / 2);
    dy = HEAD;
    place();
  };
  const seen = (m) => {
    const [px, py] = [dx + scale * x(m), dy + scale * y(m)];
    if (px < 30) dx += 60 - px;
    if (px > stage.clientWidth - 120) dx -= px - stage.clientWidth + 160;
    if (py < 50) dy += 90 - py;
    if (py > stage.clientHeight - 40) dy -= py - stage.clientHeight + 80;
    place();
  };
  const begin = (wide, high, first) => {
    const across = stage.clientWidth / wide;
    scale = Math.min(1.3, Math.max(Math.min(across, 1.3), 0.72));
    const needed = Math.max(HEAD + scale * high + 20, 220);
    if (needed < stage.clientHeight) stage.style.height = `${needed}px`;
    all = Math.min(across, (stage.clientHeight - HEAD) / high, 1.3);
    dx = Math.max(0, (stage.clientWidth - scale * wide) / 2);
    dy = HEAD;
    place();
    if (first >= 0) seen(drawn.marks[first]);
    stage.dataset.drawn = performance.now().toFixed(0);
  };
  const near = (i, ways) => {
    const from = drawn.marks[i];
    let best = -1, least = Infinity;
    drawn.marks.forEach((m, k) => {
      const [ax, ay] = [(x(m) - x(from)) * ways[0], (y(m) - y(from)) * ways[1]];
      const along = ax + ay;
      if (k === i || along <= 1) return;
      const aside = ways[0] ? Math.abs(y(m) - y(from)) : Math.abs(x(m) - x(from));
      if (along + 2.5 * aside < least) [best, least] = [k, along + 2.5 * aside];
    });
    return best;
  };
  const WAYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const pressed = (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const i = marks.indexOf(document.activeElement);
    if (e.key === "+" || e.key === "=") zoom(1.3, ...middle());
    else if (e.key === "-") zoom(1 / 1.3, ...middle());
    else if (e.key === "0") fit();
    else if (WAYS[e.key] && i >= 0) {
      const next = near(i, WAYS[e.key]);
      if (next >= 0) {
        marks[i].setAttribute("tabindex", "-1");
        marks[next].setAttribute("tabindex", "0");
        marks[next].focus({ preventScroll: true });
      }
    } else return;
    e.preventDefault();
  };
  const listen = () => {
    const held = new Map();
    let start = null;
    svg.addEventListener("pointerdown", (e) => {
      if (e.button > 0) return;
      held.set(e.pointerId, [e.clientX, e.clientY]);
      touched = e.pointerType === "touch" ? { mark: touched?.mark } : null;
      moved = false;
      start = [e.clientX, e.clientY];
    });
    addEventListener("pointermove", (e) => {
      const old = held.get(e.pointerId);
      if (!old) return;
      const now = [e.clientX, e.clientY];
      if (Math.hypot(now[0] - start[0], now[1] - start[1]) > 6) {
        moved = true;
        svg.classList.add("held");
      }
      if (held.size === 2) {
        const [other] = [...held].filter(([id]) => id !== e.pointerId).map(([, p]) => p);
        const box = svg.getBoundingClientRect();
        const apart = (p) => Math.max(Math.hypot(p[0] - other[0], p[1] - other[1]), 1);
        zoom(apart(now) / apart(old), (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
      } else {
        dx += now[0] - old[0];
        dy += now[1] - old[1];
        place();
      }
      held.set(e.pointerId, now);
    });
    const let_go = (e) => {
      held.delete(e.pointerId);
      svg.classList.remove("held");
    };
    addEventListener("pointerup", let_go);
    addEventListener("pointercancel", let_go);
    svg.addEventListener("dragstart", (e) => e.preventDefault());
    svg.addEventListener("wheel", (e) => {
      e.preventDefault();
      const box = svg.getBoundingClientRect();
      zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0015)), e.clientX - box.left, e.clientY - box.top);
    }, { passive: false });
    stage.addEventListener("keydown", pressed);
    for (const b of stage.querySelectorAll("[data-move]")) {
      b.addEventListener("click", () => {
        if (b.dataset.move === "fit") fit();
        else zoom(b.dataset.move === "in" ? 1.3 : 1 / 1.3, ...middle());
      });
    }
  };

  drawn = JSON.parse(document.getElementById("drawn").textContent);
  draw();
  listen();
})();
