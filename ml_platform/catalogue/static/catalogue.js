// The search of the static export, by the rules of catalogue/search.py. Nothing is loaded from elsewhere.
"use strict";
(() => {
  const WEIGHTS = { name: 10, term: 6, column: 5, tag: 4, owner: 3, description: 2, other: 1 };
  const IN_DESCRIPTION = 0.5, MADE = 0.7, SHOWN = 50, MOST_COLUMNS = 5;
  const words = (text) => [...new Set((text.replace(/([a-z])(?=[A-Z])/g, "$1 ").toLowerCase().match(/[\p{L}\p{N}]+/gu)) || [])];
  const remembered = new Map();
  const once = (text) => {
    let found = remembered.get(text);
    if (!found) remembered.set(text, (found = words(text)));
    return found;
  };
  const distance = (left, right, most) => {
    let older = [], before = [], row = Array.from({ length: right.length + 1 }, (_, j) => j);
    for (let i = 1; i <= left.length; i++) {
      older = before; before = row; row = [i];
      for (let j = 1; j <= right.length; j++) {
        row[j] = Math.min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left[i - 1] !== right[j - 1]));
        if (i > 1 && j > 1 && left[i - 1] === right[j - 2] && left[i - 2] === right[j - 1]) row[j] = Math.min(row[j], older[j - 2] + 1);
      }
      if (Math.min(...row) > most) return most + 1;
    }
    return row[right.length];
  };
  const likeness = (wanted, word) => {
    if (wanted === word) return 1;
    if (word.startsWith(wanted)) return 0.8;
    if (wanted.length >= 3 && word.includes(wanted)) return 0.6;
    const allowed = wanted.length < 4 ? 0 : wanted.length < 8 ? 1 : 2;
    if (!allowed || wanted[0] !== word[0] || Math.abs(wanted.length - word.length) > allowed) return 0;
    const wrong = distance(wanted, word, allowed);
    return wrong > allowed ? 0 : wrong === 1 ? 0.5 : 0.35;
  };
  const best = (wanted, held, known) => {
    let most = 0;
    for (const one of held) {
      let fit = known.get(one);
      if (fit === undefined) known.set(one, (fit = likeness(wanted, one)));
      if (fit > most) most = fit;
    }
    return most;
  };
  const hitOf = (entry, query, wanted, fits) => {
    const fields = [["name", entry.t], ["term", entry.w], ["tag", entry.g.join(" ")], ["owner", entry.o], ["description", entry.d], ["other", entry.x]];
    const columns = entry.c.map(([name]) => [name, 0]);
    let total = 0;
    for (const word of wanted) {
      const known = fits.get(word);
      let most = 0;
      for (const [name, text] of fields) most = Math.max(most, WEIGHTS[name] * best(word, once(text), known));
      entry.c.forEach(([name, description], place) => {
        const fit = Math.max(best(word, once(name), known), IN_DESCRIPTION * best(word, once(description), known));
        columns[place][1] += fit;
        most = Math.max(most, WEIGHTS.column * fit);
      });
      if (!most) return null;
      total += most;
    }
    if (wanted.length > 1 && columns.some(([, fit]) => fit > 0.75 * wanted.length)) total += WEIGHTS.column;
    if (entry.m) total *= MADE;
    const exact = query.trim().toLowerCase(), title = entry.t.toLowerCase();
    if ([entry.n.toLowerCase(), title, title.slice(title.lastIndexOf(".") + 1)].includes(exact)) total += 2 * WEIGHTS.name;
    const named = columns.filter(([, fit]) => fit).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    return { entry, total, columns: named.slice(0, MOST_COLUMNS).map(([name]) => name) };
  };
  const item = ({ entry, columns }) => {
    const line = document.createElement("li"), link = document.createElement("a"), kind = document.createElement("span");
    line.className = "hit"; link.href = entry.u; link.textContent = entry.t;
    kind.className = "badge"; kind.textContent = entry.k;
    line.append(link, " ", kind);
    for (const [text, name] of [[entry.d, ""], [[entry.o || "no owner", columns.length ? `columns ${columns.join(", ")}` : ""].filter(Boolean).join(" · "), "note"]]) {
      if (!text) continue;
      const paragraph = document.createElement("p");
      paragraph.className = name; paragraph.textContent = text;
      line.append(paragraph);
    }
    return line;
  };
  const form = document.getElementById("search"), list = document.getElementById("hits"), count = document.getElementById("count");
  const entries = window.CATALOGUE || [];
  const field = (name) => form.elements[name].value;
  const show = () => {
    const query = field("q"), kind = field("kind"), owner = field("owner"), tag = field("tag");
    const wanted = words(query), fits = new Map(wanted.map((word) => [word, new Map()]));
    const chosen = entries.filter((one) => (!kind || one.k === kind) && (!owner || one.o === owner) && (!tag || one.g.includes(tag)));
    const hits = query.trim()
      ? chosen.map((one) => wanted.length ? hitOf(one, query, wanted, fits) : null).filter(Boolean).sort((a, b) => b.total - a.total || (a.entry.n < b.entry.n ? -1 : 1))
      : chosen.map((entry) => ({ entry, columns: [] }));
    count.textContent = hits.length.toLocaleString("en");
    const few = query.trim() || kind || owner || tag;
    list.replaceChildren(...(few ? hits.slice(0, SHOWN) : hits).map(item));
  };
  const given = new URLSearchParams(location.search);
  let any = false;
  for (const name of ["q", "kind", "owner", "tag"]) if (given.get(name)) { form.elements[name].value = given.get(name); any = true; }
  if (any) show();
  form.addEventListener("submit", (event) => { event.preventDefault(); show(); });
  form.addEventListener("input", show);
})();
