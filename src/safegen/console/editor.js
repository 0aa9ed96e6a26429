"use strict";
// The policy editor: numbered lines, problems while one types, and words from the schema. Without
// this script the form's buttons do all that but the offers.
(() => {
  const form = document.getElementById("edit");
  const area = document.getElementById("text");
  const lines = document.getElementById("lines");
  const found = document.getElementById("found");
  const offers = document.getElementById("offers");
  const token = form.elements.token.value;
  let schema = null, bad = new Set(), chosen = -1, words = [], waiting = 0, asked = 0;

  const make = (tag, text, kind) => {
    const one = document.createElement(tag);
    one.textContent = text;
    if (kind) one.className = kind;
    return one;
  };

  const number = () => {
    const many = area.value.split("\n").length;
    lines.replaceChildren(...Array.from({length: many}, (_, i) =>
      make("li", String(i + 1), bad.has(i + 1) ? "bad" : "")));
    lines.scrollTop = area.scrollTop;
  };

  const goTo = (line) => {
    const before = area.value.split("\n").slice(0, line - 1).join("\n");
    const at = before.length + (line > 1 ? 1 : 0);
    area.focus();
    area.setSelectionRange(at, at + (area.value.split("\n")[line - 1] || "").length);
    area.scrollTop = Math.max(0, (line - 6) * area.scrollHeight / area.value.split("\n").length);
  };

  const tell = (problems, notes) => {
    bad = new Set(problems.map((p) => p.line));
    found.replaceChildren(...[...problems.slice(0, 50), ...notes].map((p, i) => {
      const item = make("li", "", i < problems.length ? "" : "note");
      if (p.line) {
        const go = make("button", "line " + p.line);
        go.type = "button";
        go.addEventListener("click", () => goTo(p.line));
        item.append(go);
      }
      item.append(p.message);
      return item;
    }));
    if (!problems.length) found.prepend(make("li", "No problems.", "good"));
    number();
  };

  const lint = async () => {
    const mine = ++asked;
    try {
      const answer = await fetch("/api/v1/policies/" + encodeURIComponent(form.dataset.name) + "/lint", {
        method: "POST",
        headers: {"content-type": "application/json", "x-safegen-token": token},
        body: JSON.stringify({text: area.value}),
      });
      const said = await answer.json();
      if (mine !== asked) return;
      answer.ok ? tell(said.problems, said.notes) : tell([{line: null, message: said.detail}], []);
    } catch (_) {
      if (mine === asked) tell([{line: null, message: "the console does not answer"}], []);
    }
  };

  // ---- what may stand where the cursor is ----

  const resolved = (node) => {
    while (node && node.$ref) {
      node = node.$ref.slice(2).split("/").reduce((at, key) => at && at[key], schema);
    }
    return node || {};
  };
  const options = (node) => {
    node = resolved(node);
    return [node, ...(node.anyOf || node.oneOf || []).map(resolved)];
  };
  const under = (node, key) => {
    for (const one of options(node)) {
      if (one.properties && one.properties[key]) return one.properties[key];
      if (key === "-" && one.items) return one.items;
      if (one.additionalProperties && typeof one.additionalProperties === "object") {
        return one.additionalProperties;
      }
    }
    return null;
  };
  const keyOf = (line) => /^(\s*(?:- )?)([\w.-]+):/.exec(line);

  // The keys above a line, from the top of the document, by indentation.
  const path = (before, indent) => {
    const up = [];
    for (let i = before.length - 1; i >= 0 && indent > 0; i--) {
      const line = before[i];
      if (!line.trim() || line.trim().startsWith("#")) continue;
      const here = line.length - line.trimStart().length;
      const key = keyOf(line);
      const dash = line.trimStart().startsWith("- ");
      if (here < indent && key) {
        // `- key:` opens an item; what is indented to its key belongs to the item.
        if (dash && key[1].length <= indent) {
          if (key[1].length < indent) up.unshift(key[2]);
          up.unshift("-");
        } else if (!dash) {
          up.unshift(key[2]);
        }
        indent = here;
      }
    }
    return up;
  };

  const offered = () => {
    if (!schema) return [];
    const upTo = area.value.slice(0, area.selectionStart).split("\n");
    const line = upTo.pop();
    if (line.trimStart().startsWith("#")) return [];
    const value = /^(\s*)((?:- )?)([\w.-]+):[ \t]+([\w.-]*)$/.exec(line);
    const key = /^(\s*)((?:- )?)([\w.-]*)$/.exec(line);
    const part = value || key;
    if (!part) return [];
    const dash = part[2] ? ["-"] : [];
    let node = schema;
    for (const one of [...path(upTo, part[1].length), ...dash]) {
      node = under(node, one);
      if (!node) return [];
    }
    if (value) {
      const at = under(node, value[3]);
      if (!at) return [];
      const all = options(at).flatMap((one) => [
        ...(one.enum || []), ...(one.const !== undefined ? [one.const] : []),
        ...(one.type === "boolean" ? ["true", "false"] : []),
      ]);
      return all.filter((w) => String(w).startsWith(value[4]) && String(w) !== value[4])
        .map((w) => ({word: String(w), typed: value[4], after: "", says: resolved(at).description || ""}));
    }
    const known = options(node).flatMap((one) => Object.entries(one.properties || {}));
    return known.filter(([w]) => w.startsWith(key[3]) && w !== key[3]).map(([word, at]) => {
      const all = options(at);
      const deep = all.some((one) => one.type === "object" || one.type === "array");
      const says = at.description || resolved(at).description || "";
      return {word, typed: key[3], after: deep ? ":" : ": ", says};
    });
  };

  const close = () => { words = []; chosen = -1; offers.replaceChildren(); };
  const draw = () => {
    offers.replaceChildren(...words.map((w, i) => {
      const item = make("li", "");
      item.id = "offer-" + i;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", String(i === chosen));
      item.append(make("b", w.word), make("small", w.says));
      item.addEventListener("mousedown", (event) => { event.preventDefault(); take(i); });
      return item;
    }));
    const now = offers.children[chosen];
    if (now) now.scrollIntoView({block: "nearest"});
  };
  const offer = (wanted) => {
    words = offered().slice(0, 40);
    chosen = words.length ? 0 : -1;
    if (!wanted && words.length && !words[0].typed) { close(); return; }
    draw();
  };
  const take = (i) => {
    const one = words[i], end = area.selectionStart;
    area.setRangeText(one.word + one.after, end - one.typed.length, end, "end");
    close();
    changed();
  };

  const changed = () => {
    number();
    clearTimeout(waiting);
    waiting = setTimeout(lint, 350);
  };

  area.addEventListener("input", () => { changed(); offer(false); });
  area.addEventListener("scroll", () => { lines.scrollTop = area.scrollTop; });
  area.addEventListener("blur", close);
  area.addEventListener("keydown", (event) => {
    if (event.key === " " && event.ctrlKey) { event.preventDefault(); offer(true); return; }
    if (!words.length) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      chosen = (chosen + step + words.length) % words.length;
      draw();
    } else if (event.key === "Enter" && chosen >= 0) {
      event.preventDefault();
      take(chosen);
    } else if (event.key === "Escape") {
      event.preventDefault();
      close();
    }
  });

  number();
  lint().then(() => {
    const first = found.querySelector("button");
    if (first && location.search.startsWith("?waive=")) first.click();  // what is to be filled in
  });
  fetch("/api/v1/policies/schema").then((a) => a.json()).then((s) => { schema = s; });
})();
