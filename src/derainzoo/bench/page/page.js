"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const palette = ["#3b7dc4", "#e07b28", "#3d9a52", "#d2494b", "#8b63b8", "#3aa3a0", "#c9a227", "#d86fa4", "#8c6d55", "#7f8a94"];
const colour = Object.fromEntries(data.labels.map((label, i) => [label, palette[i % palette.length]]));
const state = { sort: null, picture: null };

// ---- small helpers

/** An element; `text` never becomes markup. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "line", "circle", "rect", "path", "text", "polyline"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter(child => child !== null));
  return node;
}
const fill = (node, ...children) => node.replaceChildren(...children);
const finite = values => values.filter(Number.isFinite);
const mean = values => values.reduce((sum, v) => sum + v, 0) / values.length;
const digits = metric => metric.startsWith("ssim") ? 4 : 2;
const show = (value, places = 2) => Number.isFinite(value) ? value.toFixed(places) : "–";
const signed = (value, places = 2) => Number.isFinite(value) ? (value >= 0 ? "+" : "−") + Math.abs(value).toFixed(places) : "–";
const pretty = metric => metric.replace(/_(official|pypi)$/, "").replace(/_(.+)$/, "").toUpperCase();
function short(value, unit = "") {
  if (!Number.isFinite(value)) return "–";
  const [size, prefix] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([s]) => Math.abs(value) >= s) || [1, ""];
  return `${Number((value / size).toPrecision(3))} ${prefix}${unit}`.trim();
}
function choose(select, options, wanted) {
  fill(select, ...options.map(([value, text]) => make("option", { value }, text)));
  if (options.some(([value]) => value === wanted)) select.value = wanted;
}
function quantile(sorted, q) {
  const place = (sorted.length - 1) * q, below = Math.floor(place);
  return sorted[below] + (place - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}
function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= raw);
  const out = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * step; v += step) out.push(Number(v.toPrecision(12)));
  return out;
}
const tip = at("tip");
function hint(text) {
  return {
    onpointermove: event => {
      tip.textContent = text;
      tip.style.display = "block";
      tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6) + "px";
      tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 10) + "px";
    },
    onpointerleave: () => { tip.style.display = "none"; },
  };
}
/** Drawings are as wide as their place, so that letters keep their size on a phone. */
const width = node => Math.max(300, Math.min(1080, node.parentElement.clientWidth - 2 * parseFloat(getComputedStyle(node.parentElement).paddingLeft)));

// ---- what is chosen

const shown = () => data.results.filter(r => r.set === at("set").value && r.protocol === at("protocol").value);
const protocol = () => data.protocols[at("protocol").value];
const pixels = () => data.sets[at("set").value];
const first = () => protocol().metrics[0];
const better = (a, b) => protocol().higher_is_better ? a > b : a < b;
const values = (result, metric) => result.values[metric];

// ---- the table

function columns() {
  const cost = key => r => r.cost[key] ?? NaN;
  const metrics = protocol().metrics.flatMap((m, i) => [
    { name: pretty(m), value: r => r.means[m], text: v => show(v, digits(m)), up: protocol().higher_is_better, best: true },
    ...(i ? [] : [{ name: "gain", value: r => r.means[m] - r.input[m], text: v => signed(v, digits(m)), up: protocol().higher_is_better }]),
  ]);
  return [
    { name: "#", value: r => r.rank ?? Infinity, text: v => v === Infinity ? "" : String(v) },
    { name: "network", value: r => r.label, css: "text" },
    ...metrics,
    { name: "parameters", value: cost("params"), text: v => short(v), best: true },
    { name: "MACs", value: cost("macs"), text: v => short(v), best: true },
    { name: "time", value: cost("forward_ms"), text: v => Number.isFinite(v) ? Number(v.toPrecision(3)) + " ms" : "–", best: true },
    { name: "memory", value: cost("forward_memory"), text: v => Number.isFinite(v) ? Math.round(v / 2 ** 20) + " MiB" : "–", best: true },
    { name: "training", value: r => r.training, css: "text" },
  ];
}

function drawTable() {
  const all = columns(), results = shown();
  const by = all.find(c => c.name === state.sort?.name);
  const order = (a, b) => {
    if (!by) return (a.rank === null) - (b.rank === null) || a.training.localeCompare(b.training) || a.rank - b.rank;
    const [x, y] = [by.value(a), by.value(b)];
    const less = typeof x === "string" ? x.localeCompare(y) : Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : x - y;
    return state.sort.down && !(Number.isNaN(x) || Number.isNaN(y)) ? -less : less;
  };
  const head = make("tr", {}, ...all.map(c => {
    const sorted = by === c ? (state.sort.down ? "descending" : "ascending") : null;
    const press = () => {
      state.sort = by === c ? { name: c.name, down: !state.sort.down } : { name: c.name, down: Boolean(c.up) };
      drawTable();
    };
    return make("th", { class: c.css, "aria-sort": sorted, scope: "col" }, make("button", { onclick: press }, c.name));
  }));
  // bold: the best among those that may be compared, where there are at least two
  const bestOf = (c, r) => {
    const peers = results.filter(o => o.training === r.training && o.rank !== null).map(c.value).filter(Number.isFinite);
    return c.best && r.rank !== null && peers.length > 1 && c.value(r) === (c.up ? Math.max(...peers) : Math.min(...peers));
  };
  const cell = (c, r) => {
    const value = c.value(r);
    if (c.name === "#") return make("td", {}, r.rank === null ? "" : make("span", { class: r.rank === 1 ? "rank first" : "rank" }, c.text(value)));
    if (c.name === "network") {
      const name = make("span", { class: r.warnings.length ? "warned" : null }, r.label);
      return make("td", { class: "text", ...hint(r.warnings.join("\n") || r.weights) }, make("span", { class: "dot", style: `background:${colour[r.label]}` }), name, make("small", {}, r.network));
    }
    if (c.name === "training") return make("td", { class: "text" }, value, r.budget ? make("small", {}, r.budget) : null);
    return make("td", { class: bestOf(c, r) ? "best" : null }, c.text(value));
  };
  const body = [];
  let group = null;
  for (const r of [...results].sort(order)) {
    if (!by && r.training !== group) {
      group = r.training;
      const words = r.rank === null ? `trained on: ${group} (not ranked)` : `trained on ${group}`;
      body.push(make("tr", { class: "group" }, make("td", { colspan: all.length, class: "text" }, words)));
    }
    body.push(make("tr", { class: "network" }, ...all.map(c => cell(c, r))));
  }
  const rainy = all.map(c => {
    const metric = protocol().metrics.find(m => pretty(m) === c.name);
    if (c.name === "network") return make("td", { class: "text" }, "rainy pictures");
    return make("td", {}, metric && results.length ? show(results[0].input[metric], digits(metric)) : "");
  });
  fill(at("table"), make("thead", {}, head), make("tbody", {}, ...body, make("tr", { class: "rainy" }, ...rainy)));
  fill(at("warnings"), ...results.flatMap(r => r.warnings.map(w => make("li", {}, `${r.label} may have seen these scenes. ${w}`))));
}

// ---- quality against cost

const costs = {
  macs: ["multiply-adds", v => short(v)],
  params: ["parameters", v => short(v)],
  forward_ms: ["time of a picture", v => Number(v.toPrecision(3)) + " ms"],
  forward_memory: ["memory", v => short(v / 2 ** 20) + " MiB"],
};

function drawPareto() {
  const key = at("axis").value, [title, text] = costs[key], m = first();
  const points = shown().map(r => ({ r, x: r.cost[key], y: r.means[m] })).filter(p => Number.isFinite(p.x) && Number.isFinite(p.y));
  const W = width(at("pareto")), H = W < 560 ? 320 : 400, L = 52, R = 18, T = 14, B = 42;
  if (!points.length) return fill(at("pareto"), "Not measured.");
  const logs = points.map(p => Math.log10(p.x)), ys = points.map(p => p.y);
  const [x0, x1] = [Math.min(...logs) - .15, Math.max(...logs) + .35];
  const pad = (Math.max(...ys) - Math.min(...ys)) * .15 || .5;
  const [y0, y1] = [Math.min(...ys) - pad, Math.max(...ys) + pad];
  const X = v => L + (Math.log10(v) - x0) / (x1 - x0) * (W - L - R), Y = v => H - B - (v - y0) / (y1 - y0) * (H - T - B);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${pretty(m)} against ${title}` });
  for (const v of ticks(y0, y1)) svg.append(
    make("line", { class: "grid", x1: L, x2: W - R, y1: Y(v), y2: Y(v) }),
    make("text", { class: "quiet", x: L - 8, y: Y(v) + 4, "text-anchor": "end" }, String(v)));
  const decades = [];
  for (let e = Math.floor(x0); e <= x1; e++) for (const f of [1, 2, 5]) {
    const v = f * 10 ** e;
    if (Math.log10(v) >= x0 && Math.log10(v) <= x1) decades.push(v);
  }
  const few = decades.length > W / 75 ? decades.filter(v => Math.log10(v) % 1 === 0) : decades;
  for (const v of few) svg.append(
    make("line", { class: "grid", x1: X(v), x2: X(v), y1: T, y2: H - B }),
    make("text", { class: "quiet", x: X(v), y: H - B + 17, "text-anchor": "middle" }, text(v)));
  svg.append(make("text", { class: "quiet", x: L, y: H - 6 }, `${title} (logarithmic)`), make("text", { class: "quiet", x: L, y: T - 2 }, `${pretty(m)}, ${at("protocol").value}`));
  // a front for each training set: what cost buys is comparable only within one
  for (const training of new Set(points.filter(p => p.r.rank !== null).map(p => p.r.training))) {
    const group = points.filter(p => p.r.training === training && p.r.rank !== null).sort((a, b) => a.x - b.x);
    const front = [];
    for (const p of group) if (!front.length || better(p.y, front[front.length - 1].y)) front.push(p);
    if (front.length < 2) continue;
    const path = front.map((p, i) => i ? `H${X(p.x)}V${Y(p.y)}` : `M${X(p.x)} ${Y(p.y)}`).join("");
    svg.append(make("path", { class: "front", d: path, fill: "none", stroke: "currentColor", "stroke-opacity": .45, "stroke-dasharray": "5 4", "stroke-width": 1.5 }));
  }
  const placed = [];
  for (const p of points.sort((a, b) => b.y - a.y)) {
    const x = X(p.x), y = Y(p.y), label = p.r.label, wide = label.length * 6.4;
    const right = x + 12 + wide < W;
    let ty = y + 4;
    while (placed.some(q => Math.abs(q.y - ty) < 14 && Math.abs(q.x - x) < Math.max(wide, q.wide))) ty += 14;
    placed.push({ x, y: ty, wide });
    svg.append(
      make("circle", { class: "mark", cx: x, cy: y, r: 7, fill: colour[label], "fill-opacity": p.r.rank === null ? .45 : 1, ...hint(`${label}\n${pretty(m)} ${show(p.y, digits(m))}\n${text(p.x)}\ntrained on: ${p.r.training}`) }),
      make("text", { x: right ? x + 12 : x - 12, y: ty, "text-anchor": right ? "start" : "end" }, label));
  }
  fill(at("pareto"), svg);
  const c = points[0].r.cost;
  at("pareto-note").textContent = `Up and to the left is better. The dashed line joins the best of one training set at each price. Pictures of ${c.height} × ${c.width}` + (c.device ? `, ${c.device}, ${c.precision}.` : ".");
}

// ---- per-image distributions

function drawDistributions() {
  const [metric, gain] = at("what").value.split(":"), results = shown();
  const of = r => values(r, metric).map((v, i) => gain ? v - values(r, "input_" + metric)[i] : v);
  const W = width(at("distributions")), narrow = W < 560, L = narrow ? 14 : 170, R = 16, row = narrow ? 66 : 54, T = 8, H = T + results.length * row + 34;
  const every = finite(results.flatMap(of));
  if (!every.length) return fill(at("distributions"), "Nothing finite to show.");
  const low = Math.min(...every), high = Math.max(...every), pad = (high - low) * .03 || .5;
  const X = v => L + (v - low + pad) / (high - low + 2 * pad) * (W - L - R);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Distribution over pictures" });
  for (const v of ticks(low, high, narrow ? 4 : 8)) svg.append(
    make("line", { class: "grid", x1: X(v), x2: X(v), y1: T, y2: H - 30 }),
    make("text", { class: "quiet", x: X(v), y: H - 12, "text-anchor": "middle" }, String(v)));
  results.forEach((r, i) => {
    const y = T + i * row + (narrow ? 42 : row / 2), all = of(r), sorted = finite(all).sort((a, b) => a - b);
    svg.append(make("text", narrow ? { x: L, y: y - 24 } : { x: L - 12, y: y + 4, "text-anchor": "end" }, r.label.length > 24 ? r.label.slice(0, 23) + "…" : r.label));
    if (!sorted.length) return;
    const [q1, q3, mid] = [quantile(sorted, .25), quantile(sorted, .75), mean(sorted)];
    svg.append(make("rect", { x: X(q1), y: y - 15, width: Math.max(1, X(q3) - X(q1)), height: 30, rx: 5, fill: colour[r.label], "fill-opacity": .16 }));
    all.forEach((v, k) => {
      if (!Number.isFinite(v)) return;
      const name = pixels().names[k], jitter = ((k * 0.618034) % 1 - .5) * 22;
      const kept = pixels().pictures.some(p => p.name === name);
      svg.append(make("circle", { class: kept ? "mark kept" : "mark", cx: X(v), cy: y + jitter, r: 3.6, fill: colour[r.label], "fill-opacity": .75,
        onclick: () => { if (kept) { choosePicture(name, r.label); at("pictures").scrollIntoView({ behavior: "smooth" }); } }, ...hint(`${name}\n${r.label}: ${show(v, digits(metric))}`) }));
    });
    svg.append(make("line", { x1: X(mid), x2: X(mid), y1: y - 17, y2: y + 17, stroke: colour[r.label], "stroke-width": 3, "stroke-linecap": "round" }));
  });
  fill(at("distributions"), svg);
}

// ---- two networks

function drawPair() {
  const [a, b] = ["a", "b"].map(id => shown().find(r => r.label === at(id).value)), m = first();
  if (!a || !b || a === b) return fill(at("verdict"), "Choose two networks."), fill(at("differences"));
  const found = data.pairs.find(p => p.set === a.set && p.protocol === a.protocol && [p.a, p.b].includes(a.label) && [p.a, p.b].includes(b.label));
  if (!found) return fill(at("verdict"), "No picture has a finite value of both."), fill(at("differences"));
  const turn = found.a === a.label ? 1 : -1, d = digits(m), sign = turn * found.mean;
  const [low, high] = turn > 0 ? [found.low, found.high] : [-found.high, -found.low];
  const [wins, losses] = turn > 0 ? [found.wins, found.losses] : [found.losses, found.wins];
  const open = low <= 0 && high >= 0, good = protocol().higher_is_better ? sign > 0 : sign < 0;
  const unit = found.scenes < found.images ? "scenes" : "pictures";
  const box = (value, words, css) => make("div", {}, make("b", { class: css }, value), make("span", {}, words));
  fill(at("verdict"), make("span", { class: "figures" },
    box(signed(sign, d), `mean difference A − B, ${pretty(m)}`, open ? null : good ? "good" : "bad"),
    box(`${signed(low, d)} … ${signed(high, d)}`, `${Math.round(100 * found.level)} % interval (bootstrap over ${found.scenes} ${unit})`),
    box(`${wins} : ${losses}`, `${unit} where A : B has the larger value` + (found.ties ? `, ${found.ties} equal` : "")),
    box(found.p_value < .001 ? "< 0.001" : found.p_value.toFixed(3), "p of the sign test, two-sided")),
    open ? "The interval holds zero: these pictures do not tell the two apart." : `On these pictures ${good ? a.label : b.label} is better.`,
    a.training === b.training ? "" : " They were trained on different data, so this is no comparison of the networks alone.");
  const diffs = values(a, m).map((v, i) => ({ v: v - values(b, m)[i], name: pixels().names[i] })).filter(x => Number.isFinite(x.v)).sort((x, y) => x.v - y.v);
  const W = width(at("differences")), H = 180, L = 46, T = 12, B = 12;
  const top = Math.max(0, ...diffs.map(x => x.v)), bottom = Math.min(0, ...diffs.map(x => x.v));
  const Y = v => T + (top - v) / (top - bottom || 1) * (H - T - B), step = (W - L) / diffs.length;
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Differences, picture by picture" });
  for (const v of ticks(bottom, top, 4)) svg.append(make("line", { class: "grid", x1: L, x2: W, y1: Y(v), y2: Y(v) }), make("text", { class: "quiet", x: L - 7, y: Y(v) + 4, "text-anchor": "end" }, String(v)));
  diffs.forEach((x, i) => svg.append(make("rect", { class: "mark", x: L + i * step + .5, y: Math.min(Y(0), Y(x.v)), width: Math.max(.8, Math.min(step - 1, 26)), height: Math.max(1, Math.abs(Y(x.v) - Y(0))), fill: colour[(x.v > 0 ? a : b).label], ...hint(`${x.name}: ${signed(x.v, d)}`) })));
  fill(at("differences"), svg);
}

// ---- before and after

const picture = () => pixels().pictures.find(p => p.name === state.picture);
const source = (p, kind) => p[kind] ?? p.restored[kind];

function choosePicture(name, label) {
  state.picture = name;
  const p = picture();
  if (!p) return;
  const kinds = [["rainy", "rainy"], ["clean", "clean"], ...Object.keys(p.restored).map(l => [l, l])].filter(([k]) => source(p, k));
  choose(at("left"), kinds, at("left").value || "rainy");
  choose(at("right"), kinds, label ?? (kinds.some(([k]) => k === at("right").value) && at("right").value ? at("right").value : p.of));
  for (const button of at("strip").children) button.setAttribute("aria-selected", String(button.dataset.name === name));
  drawSlider();
}

function drawSlider() {
  const p = picture();
  if (!p) return;
  for (const [id, image] of [["left", "over"], ["right", "under"]]) {
    const kind = at(id).value;
    at(image).src = source(p, kind);
    at(image).alt = `${p.name}, ${kind}`;
    at("name-" + id).textContent = kind;
  }
  at("slider").style.maxWidth = p.width / p.height > 1 ? "900px" : "520px";
  const m = first(), k = pixels().names.indexOf(p.name), r = shown();
  const told = r.map(x => `${x.label} ${show(values(x, m)[k], digits(m))}`);
  at("caption").textContent = r.length ? `${p.name} · ${pretty(m)} (${at("protocol").value}): rainy ${show(values(r[0], "input_" + m)[k], digits(m))} · ${told.join(" · ")} · ${p.why}` : p.name;
  slide();
}

function slide() {
  const place = at("position").value;
  at("over").style.clipPath = `inset(0 ${100 - place}% 0 0)`;
  at("divider").style.left = place + "%";
}

function drawStrip() {
  const list = pixels().pictures;
  at("pictures").hidden = !list.length;
  fill(at("strip"), ...list.map(p => make("button", { role: "option", "data-name": p.name, title: p.why, onclick: () => choosePicture(p.name) }, make("img", { src: p.rainy, alt: "" }), make("span", {}, p.name))));
  if (list.length) choosePicture(list.some(p => p.name === state.picture) ? state.picture : list[0].name);
}

// ---- what does not depend on the choice

function drawReported() {
  at("reported").hidden = !data.reported.length;
  const places = paper => Math.max(...Object.values(paper.rows).flat().map(([, ssim]) => String(ssim).length - 2));  // 0.9860 is stored as 0.986
  fill(at("papers"), ...data.reported.map(paper => make("div", {},
    make("h3", {}, make("a", { href: paper.url, rel: "noreferrer" }, paper.source)),
    make("p", { class: "faint" }, `Protocol: ${paper.protocol}. Trained on: ${paper.trained_on}. ${paper.note}`),
    make("div", { class: "scroll" }, make("table", { class: "reported" },
      make("thead", {}, make("tr", {}, make("th", { class: "text" }, "method"), ...paper.sets.map(s => make("th", {}, s)))),
      make("tbody", {}, ...Object.entries(paper.rows).map(([name, row]) => make("tr", {}, make("td", { class: "text" }, name), ...row.map(([psnr, ssim]) => make("td", {}, `${psnr.toFixed(2)} / ${ssim.toFixed(places(paper))}`))))))))));
}

function drawDownstream() {
  const d = data.downstream;
  at("downstream").hidden = !d;
  if (!d) return;
  at("downstream-note").textContent = d.note;
  fill(at("downstream-table"), make("thead", {}, make("tr", {}, make("th", { class: "text" }, "pictures"), ...d.metrics.map(m => make("th", {}, m)))),
    make("tbody", {}, ...d.rows.map(row => make("tr", {}, make("td", { class: "text" }, row.pictures), ...d.metrics.map(m => make("td", {}, show(row[m], 4)))))));
}

function drawFacts() {
  const facts = Object.entries(data.environment).map(([k, v]) => [k, String(v)]);
  const used = [...new Map(data.results.map(r => [r.digest, r])).values()];
  const rows = [["written", data.written], ...facts,
    ...Object.entries(data.sets).map(([name, s]) => [name, `${s.names.length} pictures, revision ${s.revision.slice(0, 16)}`]),
    ...used.map(r => [r.label, `${r.weights}, sha256 of the network ${r.digest.slice(0, 16)}`]),
    ...Object.entries(data.protocols).map(([name, p]) => [name, `${p.colour}; ${p.summary} (${p.source})`])];
  fill(at("facts"), ...rows.flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]));
}

// ---- putting it together

function draw() {
  const p = protocol(), s = pixels();
  at("about").textContent = `${s.names.length} pictures · ${p.colour}`;
  choose(at("what"), p.metrics.flatMap(m => [[m, pretty(m)], [`${m}:gain`, `${pretty(m)}, gain over the rainy picture`]]), at("what").value);
  const labels = shown().map(r => [r.label, r.label]);
  choose(at("a"), labels, at("a").value);
  choose(at("b"), labels, at("b").value || labels[1]?.[0]);
  if (at("a").value === at("b").value && labels[1]) at("b").value = labels.find(([l]) => l !== at("a").value)[0];
  at("pair").hidden = labels.length < 2;
  drawTable(); drawPareto(); drawDistributions(); drawPair(); drawStrip();
}
const sets = Object.keys(data.sets), protocols = Object.keys(data.protocols);
at("lead").textContent = `${data.labels.length} network${data.labels.length > 1 ? "s" : ""} on ${sets.length} test set${sets.length > 1 ? "s" : ""}, measured by derainzoo ${data.environment.derainzoo}`;
choose(at("set"), sets.map(s => [s, s]));
choose(at("protocol"), protocols.map(s => [s, s]));
choose(at("axis"), Object.entries(costs).filter(([k]) => data.results.some(r => Number.isFinite(r.cost[k]))).map(([k, [title]]) => [k, title]));
at("set").onchange = at("protocol").onchange = draw;
at("axis").onchange = drawPareto;
at("what").onchange = drawDistributions;
at("a").onchange = at("b").onchange = drawPair;
at("left").onchange = at("right").onchange = drawSlider;
at("position").oninput = slide;
let waiting;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { drawPareto(); drawDistributions(); drawPair(); }, 120); });
draw(); drawReported(); drawDownstream(); drawFacts();
