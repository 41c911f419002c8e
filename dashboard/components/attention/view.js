const SMALLEST = 3, LARGEST = 48, LABELLED = 10;

const unpack = (packed, size) => {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: size }, (_, i) => view.getUint16(2 * i, true) / 65535);
};

const shortened = (pen, text, room) => {
  if (pen.measureText(text).width <= room) return text;
  let end = text.length;
  while (end > 1 && pen.measureText(`${text.slice(0, end)}…`).width > room) end--;
  return `${text.slice(0, end)}…`;
};

export default function ({ data, parentElement: root, setTriggerValue }) {
  const [kept, signal] = renew(root);
  const frame = root.querySelector(".frame"), canvas = root.querySelector(".heat");
  const text = root.querySelector(".text"), reading = root.querySelector(".reading");
  const tip = tooltip(frame), say = speaker(frame), on = { signal };
  const source = root.querySelector(".source"), across = data.keys !== null, looked = data.keys ?? data.tokens;
  const n = data.tokens.length, m = looked.length, weights = unpack(data.packed, n * m);
  const [asking, asked] = data.names;
  const label = (i) => `${i} ${visible(data.tokens[i])}`, keyLabel = (i) => `${i} ${visible(looked[i])}`;
  const typing = root.activeElement?.classList?.contains("token");
  let query = data.query ?? n - 1, key = null, hovered = null, cell = LARGEST, left = 0, drawn = null;
  frame.setAttribute("aria-label", data.title);
  canvas.setAttribute("aria-label", `${data.title}: heat map, ${n} by ${m} tokens`);
  text.hidden = !data.listed;
  source.hidden = !data.listed || !across;
  text.setAttribute("aria-label", across ? `${asking}; choose one` : "Prompt; choose a query token");
  root.querySelector(".asking").textContent = `Rows: ${asking}${across ? " (looks)" : " (the token that looks)"}`;
  root.querySelector(".asked").textContent = `columns: ${asked}${across ? " (looked at)" : " (the token looked at)"}`;

  const tokens = data.tokens.map((token, i) => {
    const span = document.createElement("span");
    span.className = "token";
    span.setAttribute("role", "option");
    span.textContent = token === "" ? "∅" : token;
    span.addEventListener("click", () => lock(i));
    span.addEventListener("pointermove", (event) => tip.show(event, across ? label(i) : `${label(i)}\nattention ${weights[query * m + i].toFixed(4)}`));
    span.addEventListener("pointerleave", () => tip.hide());
    return span;
  });
  text.replaceChildren(...spaced(tokens, data.tokens));
  const places = !across ? tokens : looked.map((token, k) => {
    const span = document.createElement("span");
    span.className = "token";
    span.textContent = token === "" ? "∅" : token;
    span.addEventListener("pointermove", (event) => tip.show(event, `${keyLabel(k)}\nattention ${weights[query * m + k].toFixed(4)}`));
    span.addEventListener("pointerleave", () => tip.hide());
    return span;
  });
  if (across) source.replaceChildren(...spaced(places, looked));

  const strongest = () => {
    const order = [...Array(m).keys()].sort((a, b) => weights[query * m + b] - weights[query * m + a]);
    return order.slice(0, 3).map((k) => `“${visible(looked[k])}” (${k}) ${weights[query * m + k].toFixed(2)}`).join(", ");
  };
  const shade = () => {
    const heat = variable(frame, "--heat"), paper = variable(frame, "--st-background-color");
    const ink = variable(frame, "--st-text-color");
    places.forEach((span, k) => {
      const share = Math.round(85 * Math.sqrt(weights[query * m + k]));
      span.style.setProperty("--shade", `color-mix(in srgb, ${heat} ${share}%, transparent)`);
      span.style.color = inkOn(heat, share / 100, ink, paper);
      if (!across) span.setAttribute("aria-label", `${label(k)}, attention ${weights[query * m + k].toFixed(2)}`);
    });
    tokens.forEach((span, i) => {
      span.classList.toggle("query", i === query);
      span.setAttribute("aria-selected", i === query);
      span.setAttribute("tabindex", i === query ? 0 : -1);
    });
    reading.textContent = `${across ? asking[0].toUpperCase() + asking.slice(1) : "Query"} ${query} “${visible(data.tokens[query])}” looks at: ${strongest()}`;
  };

  // The unmarked picture, kept so that hovering only repaints the marks.
  const base = () => {
    const picture = document.createElement("canvas");
    const font = `${cell >= 15 ? 11 : 9}px ${variable(frame, "--st-font") || "sans-serif"}`;
    const labels = cell >= LABELLED;
    const pen0 = picture.getContext("2d");
    pen0.font = font;
    const widest = (count, name) => (labels ? Math.min(92, Math.max(...Array.from({ length: count }, (_, i) => pen0.measureText(name(i)).width))) : 26);
    const longest = widest(n, label), lowest = widest(m, keyLabel);
    left = Math.ceil(longest) + 8;
    const bottom = labels ? Math.ceil(lowest * 0.87) + 14 : 16;
    const pen = sized(picture, left + m * cell + (labels ? 34 : 4), n * cell + bottom);
    pen.font = font;
    pen.fillStyle = variable(frame, "--st-secondary-background-color");
    pen.globalAlpha = 0.6;
    for (let q = 0; q < n; q++) pen.fillRect(left, q * cell, (data.causal ? q + 1 : m) * cell, cell);
    pen.fillStyle = variable(frame, "--heat");
    const line = cell >= 6 ? 1 : 0;
    for (let q = 0; q < n; q++) {
      for (let k = 0; k < (data.causal ? q + 1 : m); k++) {
        pen.globalAlpha = Math.sqrt(weights[q * m + k]);
        pen.fillRect(left + k * cell, q * cell, cell - line, cell - line);
      }
    }
    pen.globalAlpha = 1;
    pen.fillStyle = variable(frame, "--st-text-color");
    pen.textBaseline = "middle";
    const every = labels ? 1 : Math.ceil(30 / cell / 5) * 5;
    for (let i = 0; i < n; i += every) {
      pen.textAlign = "right";
      pen.fillText(labels ? shortened(pen, label(i), longest) : i, left - 5, (i + 0.5) * cell);
    }
    for (let i = 0; i < m; i += every) {
      pen.save();
      pen.translate(left + (i + 0.5) * cell, n * cell + 6);
      if (labels) pen.rotate(Math.PI / 3);
      pen.textAlign = labels ? "left" : "center";
      pen.fillText(labels ? shortened(pen, keyLabel(i), lowest) : i, 0, labels ? 0 : 4);
      pen.restore();
    }
    return picture;
  };
  const mark = () => {
    const pen = canvas.getContext("2d"), ratio = canvas.width / parseFloat(canvas.style.width);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(drawn, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const inside = (q) => (data.causal ? q + 1 : m) * cell;
    pen.lineWidth = 2;
    pen.strokeStyle = variable(frame, "--mark");
    const top = Math.max(1, query * cell - 1);
    pen.strokeRect(left - 1, top, inside(query) + 1, (query + 1) * cell - top);
    if (key !== null) pen.strokeRect(left + key * cell + 1, query * cell + 1, cell - 3, cell - 3);
    if (hovered) {
      pen.lineWidth = 1;
      pen.strokeStyle = variable(frame, "--st-text-color");
      pen.strokeRect(left + hovered[1] * cell - 0.5, hovered[0] * cell - 0.5, cell, cell);
    }
  };
  const draw = () => {
    const room = Math.max(240, frame.clientWidth) - 130;
    cell = Math.max(SMALLEST, Math.min(LARGEST, data.largest, Math.floor(room / m)));
    drawn = base();
    canvas.width = drawn.width;
    canvas.height = drawn.height;
    canvas.style.width = drawn.style.width;
    canvas.style.height = drawn.style.height;
    mark();
    shade();
  };
  const lock = (q, k = null) => {
    query = q;
    key = k;
    mark();
    shade();
    say(reading.textContent);
    setTriggerValue("query", q);
  };
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    const k = Math.floor((event.clientX - box.left - left) / cell), q = Math.floor((event.clientY - box.top) / cell);
    return q >= 0 && k >= 0 && q < n && k < m && (!data.causal || k <= q) ? [q, k] : null;
  };

  followTheme(frame, signal, draw);
  draw();
  if (typing) tokens[query].focus({ preventScroll: true });
  let width = frame.clientWidth;
  const observer = new ResizeObserver(() => { if (frame.clientWidth !== width) { width = frame.clientWidth; draw(); } });
  observer.observe(frame);
  signal.addEventListener("abort", () => observer.disconnect());

  canvas.addEventListener("pointermove", (event) => {
    hovered = where(event);
    mark();
    if (!hovered) return tip.hide();
    const [q, k] = hovered;
    tip.show(event, `${asking} ${label(q)}\n${asked} ${keyLabel(k)}\nattention ${weights[q * m + k].toFixed(4)}`);
  }, on);
  canvas.addEventListener("pointerleave", () => { hovered = null; tip.hide(); mark(); }, on);
  canvas.addEventListener("click", (event) => { const at = where(event); if (at) lock(...at); }, on);
  const keys = (event) => {
    const by = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = Math.min(n - 1, Math.max(0, query + by));
    if (next !== query) lock(next);
    if (event.currentTarget === text) tokens[next].focus();
  };
  canvas.addEventListener("keydown", keys, on);
  text.addEventListener("keydown", keys, on);
  return () => kept.controller.abort();
}
