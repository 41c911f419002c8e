const NS = "http://www.w3.org/2000/svg";
const LEFT = 46, RIGHT = 34, LETTER = 5.6;

const make = (name, attributes, parent) => {
  const element = document.createElementNS(NS, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  parent?.appendChild(element);
  return element;
};

const shapeOf = (node, parent) => {
  const r = node.r;
  if (node.kind === "head") return make("circle", { class: "shape", r }, parent);
  if (node.kind === "kv") return make("path", { class: "shape", d: `M0,${-r - 1}L${r + 1},0L0,${r + 1}L${-r - 1},0Z` }, parent);
  const w = node.kind === "mlp" ? r + 2 : r + 12;
  return make("rect", { class: "shape", x: -w, y: -r * 0.8, width: 2 * w, height: 1.6 * r, rx: 3 }, parent);
};

// Bottom to top; edges within one column bow to the left so that they do not hide behind each other.
const curve = (x1, y1, x2, y2) => {
  const rise = y1 - y2, middle = (y1 + y2) / 2;
  if (Math.abs(x1 - x2) < 12 && rise > 30) {
    const bow = 12 + Math.min(60, rise * 0.12);
    return `M${x1},${y1}C${x1 - bow},${y1 - rise * 0.25} ${x2 - bow},${y2 + rise * 0.25} ${x2},${y2}`;
  }
  return `M${x1},${y1}C${x1},${middle} ${x2},${middle} ${x2},${y2}`;
};

const build = (svg, data, width) => {
  const x = (fraction) => LEFT + fraction * (width - LEFT - RIGHT);
  svg.replaceChildren();
  svg.setAttribute("height", data.height);
  svg.setAttribute("viewBox", `0 0 ${width} ${data.height}`);
  const scene = make("g", {}, svg);
  data.rows.forEach((row, i) => {
    if (i % 2) make("rect", { class: "band", x: 0, y: row.top, width, height: row.bottom - row.top }, scene);
    make("text", { class: "axis", x: 6, y: row.y + 3 }, scene).textContent = row.label;
  });
  data.columns.forEach((column) => {
    make("text", { class: "axis", x: x(column.x), y: data.height - 4, "text-anchor": "middle" }, scene).textContent = column.label;
  });
  const at = Object.fromEntries(data.nodes.map((n) => [n.id, n]));
  data.groups.forEach(([from, to]) => {
    const a = at[from], b = at[to];
    make("line", { class: "group", x1: x(a.x), y1: a.y, x2: x(b.x), y2: b.y }, scene);
  });
  const pins = new Set(data.pins), members = new Set(data.members);
  const edges = data.edges.map((edge) => {
    const a = at[edge.source], b = at[edge.target], port = { q: -4, v: 4 }[edge.port] ?? 0;
    const d = curve(x(a.x), a.y - a.r * 0.7, x(b.x) + port, b.y + b.r * 0.7);
    const path = make("path", { class: `edge ${edge.kind}`, d, "stroke-width": edge.width, "stroke-opacity": edge.opacity }, scene);
    return { edge, path, hit: make("path", { class: "hit", d }) };
  });
  edges.forEach(({ hit }) => scene.appendChild(hit));
  const nodes = data.nodes.map((node) => {
    const g = make("g", {
      class: `node ${node.kind}`,
      transform: `translate(${x(node.x)},${node.y})`, role: "button", tabindex: -1,
      "aria-label": `${node.id}. ${node.about.replace(/\n/g, ". ")}`, "data-id": node.id,
    }, scene);
    shapeOf(node, g);
    if (pins.has(node.id)) make("circle", { class: "pin", r: node.r + 4 }, g);
    if (members.has(node.id)) make("circle", { class: "member", r: node.r + 7 }, g);
    const marked = pins.has(node.id) || members.has(node.id);
    const wide = node.kind === "embed" || node.kind === "logits";
    const beside = (node.kind === "mlp" ? node.r + 5 : wide ? node.r + 15 : node.r + 3) + (marked ? 6 : 0);
    const text = make("text", {}, g), edge = node.r + (marked ? 9 : 3);
    text.textContent = node.id;
    const right = [beside, 3.5, "start"], below = [0, edge + 8, "middle"], above = [0, -edge, "middle"], left = [-beside, 3.5, "end"];
    const spots = node.kind === "kv" ? [below, above, right, left] : node.kind === "head" ? [right, below, above, left] : [right];
    const half = node.kind === "mlp" ? node.r + 2 : wide ? node.r + 12 : node.r;
    const shape = [x(node.x) - half, node.y - node.r, x(node.x) + half, node.y + node.r];
    return { node, g, text, spots, shape, marked, px: x(node.x), py: node.y };
  });
  return { scene, nodes, edges };
};

// Names are written where they have room, the most wanted first; `rank` of 3 and more is written in any case.
const write = (nodes, rank) => {
  const taken = nodes.map((n) => n.shape);
  const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  for (const n of [...nodes].sort((a, b) => rank(b) - rank(a) || b.node.r - a.node.r)) {
    const wide = n.node.id.length * LETTER + 2;
    const box = ([dx, dy, anchor]) => {
      const start = n.px + dx - { start: 0, middle: wide / 2, end: wide }[anchor];
      return [start, n.py + dy - 9, start + wide, n.py + dy + 1];
    };
    const met = n.spots.map((spot) => taken.filter((other) => other !== n.shape && meet(box(spot), other)).length);
    const least = Math.min(...met), spot = least === 0 || rank(n) >= 3 ? n.spots[met.indexOf(least)] : null;
    n.g.classList.toggle("quiet", !spot);
    if (!spot) continue;
    n.text.setAttribute("x", spot[0]);
    n.text.setAttribute("y", spot[1]);
    n.text.setAttribute("text-anchor", spot[2]);
    taken.push(box(spot));
  }
};

// The nearest node in the direction of an arrow key.
const step = (nodes, from, dx, dy) => {
  let best = null, least = Infinity;
  for (const n of nodes) {
    const along = (n.px - from.px) * dx + (n.py - from.py) * dy;
    const across = Math.abs((n.px - from.px) * dy) + Math.abs((n.py - from.py) * dx);
    if (n !== from && along > 0.5 && along + 2.5 * across < least) { best = n; least = along + 2.5 * across; }
  }
  return best;
};

// Rows [sender, receiver, port, score, width, opacity] to edges by name, with what their tooltips say.
const named = (data) => data.edges.map(([from, to, port, score, width, opacity], i) => {
  const source = data.nodes[from].id, target = data.nodes[to].id;
  const kind = data.kind[i] ?? (score < 0 ? "supports" : "opposes");
  const number = `${score < 0 ? "−" : "+"}${Math.abs(score).toPrecision(3)}`;
  const about = `${source} → ${target}${port ? `<${port}>` : ""}\nscore ${number}: ${data.kinds[kind] ?? kind}`;
  return { source, target, port, score, width, opacity, kind, about };
});

export default function ({ data: given, parentElement: root, setTriggerValue }) {
  const data = { ...given, edges: named(given) };
  const [kept, signal] = renew(root);
  const frame = root.querySelector(".frame"), svg = root.querySelector(".plot");
  const tip = tooltip(frame), say = speaker(frame), on = { signal };
  frame.setAttribute("aria-label", data.title);
  const show = (name, on) => root.querySelectorAll(name).forEach((e) => { e.style.display = on ? "" : "none"; });
  const two = Object.keys(data.kinds).length > 0;
  show(".for-one", !two);
  show(".for-two", two);
  show(".for-pins", data.pins.length > 0);
  show(".for-members", data.members.length > 0);
  for (const kind in data.kinds) root.querySelector(`.word-${kind}`).textContent = data.kinds[kind];
  root.querySelector(".for-kv").style.display = data.nodes.some((n) => n.kind === "kv") ? "" : "none";
  root.querySelector(".for-mlp").style.display = data.nodes.some((n) => n.kind === "mlp") ? "" : "none";
  followTheme(frame, signal, () => {});
  kept.view ??= { k: 1, x: 0, y: 0 };
  const focused = root.activeElement?.dataset?.id ?? null;
  let built, selected = data.selected;

  const place = () => built.scene.setAttribute("transform", `translate(${kept.view.x},${kept.view.y}) scale(${kept.view.k})`);
  const light = (keepNode, keepEdge, under = null) => {
    svg.classList.toggle("hovered", !!keepNode);
    built.nodes.forEach(({ node, g }) => g.classList.toggle("lit", !!keepNode && keepNode(node.id)));
    if (keepNode) write(built.nodes, (n) => (n.node.id === under ? 3 : keepNode(n.node.id) ? 2 : 0));
    else name();
    built.edges.forEach(({ edge, path }) => path.classList.toggle("lit", !!keepEdge && keepEdge(edge)));
  };
  const name = () => {
    const near = selected ? neighbours(selected) : new Set();
    write(built.nodes, (n) => (n.node.id === selected ? 4 : n.marked ? 3 : near.has(n.node.id) ? 2 : 0));
  };
  const neighbours = (id) => {
    const near = new Set([id]);
    data.edges.forEach((e) => { if (e.source === id) near.add(e.target); if (e.target === id) near.add(e.source); });
    data.groups.forEach(([a, b]) => { if (a === id) near.add(b); if (b === id) near.add(a); });
    return near;
  };
  const touches = (id) => (e) => e.source === id || e.target === id;
  const paint = () => {
    const near = selected ? neighbours(selected) : new Set();
    svg.classList.toggle("picked", near.size > 1);
    built.nodes.forEach(({ node, g }) => {
      g.classList.toggle("selected", node.id === selected);
      g.classList.toggle("near", near.has(node.id));
      g.setAttribute("aria-pressed", node.id === selected);
    });
    built.edges.forEach(({ edge, path }) => path.classList.toggle("near", !!selected && touches(selected)(edge)));
    const entry = built.nodes.find((n) => n.node.id === selected) ?? built.nodes.at(-1);
    built.nodes.forEach((n) => n.g.setAttribute("tabindex", n === entry ? 0 : -1));
    name();
  };
  const pick = (id) => {
    selected = id;
    paint();
    setTriggerValue("pick", id ?? "");
  };
  const zoom = (factor, cx = svg.clientWidth / 2, cy = data.height / 2) => {
    const v = kept.view, k = Math.min(8, Math.max(0.5, v.k * factor)), f = k / v.k;
    kept.view = { k, x: cx - (cx - v.x) * f, y: cy - (cy - v.y) * f };
    place();
  };
  const fit = () => { kept.view = { k: 1, x: 0, y: 0 }; place(); };

  const draw = () => {
    built = build(svg, data, Math.max(320, svg.clientWidth || 900));
    built.edges.forEach(({ edge, hit }) => {
      const text = `${edge.about}`;
      hit.addEventListener("pointermove", (event) => {
        light((id) => id === edge.source || id === edge.target, (e) => e === edge);
        tip.show(event, text);
      });
      hit.addEventListener("pointerleave", () => { light(null); tip.hide(); });
    });
    built.nodes.forEach(({ node, g }) => {
      const near = neighbours(node.id);
      g.addEventListener("pointerenter", (event) => { light((id) => near.has(id), touches(node.id), node.id); tip.show(event, `${node.id}\n${node.about}`); });
      g.addEventListener("pointerleave", () => { light(null); tip.hide(); });
      g.addEventListener("click", (event) => { event.stopPropagation(); pick(node.id === selected ? null : node.id); });
      g.addEventListener("focus", () => { if (g.matches(":focus-visible")) { light((id) => near.has(id), touches(node.id), node.id); say(g.getAttribute("aria-label")); } });
      g.addEventListener("blur", () => light(null));
    });
    place();
    paint();
    if (focused) built.nodes.find((n) => n.node.id === focused)?.g.focus({ preventScroll: true });
  };
  draw();
  let width = svg.clientWidth;
  const observer = new ResizeObserver(() => { if (Math.abs(svg.clientWidth - width) > 1) { width = svg.clientWidth; draw(); } });
  observer.observe(svg);
  signal.addEventListener("abort", () => observer.disconnect());

  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = svg.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * 0.002), event.clientX - box.left, event.clientY - box.top);
  }, { signal, passive: false });
  let drag = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && !event.target.closest(".node")) drag = { x: event.clientX, y: event.clientY, from: { ...kept.view }, moved: false };
  }, on);
  window.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    drag.moved ||= Math.hypot(dx, dy) > 4;
    if (!drag.moved) return;
    svg.classList.add("moving");
    kept.view = { ...drag.from, x: drag.from.x + dx, y: drag.from.y + dy };
    place();
  }, on);
  window.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved && selected && svg.contains(event.composedPath()[0])) pick(null);
    drag = null;
    svg.classList.remove("moving");
  }, on);
  root.querySelectorAll("button.tool").forEach((button) => {
    button.addEventListener("click", () => ({ in: () => zoom(1.35), out: () => zoom(1 / 1.35), fit })[button.dataset.act](), on);
  });
  svg.addEventListener("keydown", (event) => {
    const from = built.nodes.find((n) => n.g === root.activeElement);
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in arrows && from) {
      const to = step(built.nodes, from, ...arrows[event.key]);
      if (to) {
        built.nodes.forEach((n) => n.g.setAttribute("tabindex", n === to ? 0 : -1));
        to.g.focus();
      }
    } else if ((event.key === "Enter" || event.key === " ") && from) pick(from.node.id === selected ? null : from.node.id);
    else if (event.key === "Escape") pick(null);
    else if (event.key === "+" || event.key === "=") zoom(1.35);
    else if (event.key === "-") zoom(1 / 1.35);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
  }, on);
  return () => kept.controller.abort();
}
