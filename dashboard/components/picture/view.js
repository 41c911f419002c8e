const TOKEN = 24, GAP = 14;

const unpack = (packed, size) => {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: size }, (_, i) => view.getUint16(2 * i, true) / 65535);
};

export default function ({ data, parentElement: root, setTriggerValue }) {
  const [kept, signal] = renew(root);
  const frame = root.querySelector(".frame"), canvas = root.querySelector(".image"), on = { signal };
  const reading = root.querySelector(".reading"), tip = tooltip(frame), say = speaker(frame);
  const { rows, columns } = data, signed = data.values.length > 0, first = signed ? 0 : data.first;
  const n = first + rows * columns, weights = signed ? null : unpack(data.packed, n * n);
  const image = new Image();
  let query = signed ? (data.query === null || data.query < data.first ? null : data.query - data.first) : data.query ?? 0, hovered = null, size = data.largest, tall = size;
  frame.setAttribute("aria-label", data.title);
  canvas.setAttribute("aria-label", `${data.title}: ${rows} by ${columns} patches`);

  const place = (i) => (i < first ? "class token" : `row ${Math.floor((i - first) / columns)} column ${(i - first) % columns}`);
  const weight = (k) => (signed ? data.values[k] : weights[query * n + k]);
  const written = (k, digits) => (signed ? `${weight(k) > 0 ? "+" : ""}${weight(k).toFixed(digits)}`.replace("-", "−") : weight(k).toFixed(digits));
  const strongest = () =>
    [...Array(n).keys()].sort((a, b) => Math.abs(weight(b)) - Math.abs(weight(a))).slice(0, 3).map((k) => `${place(k)} ${written(k, 2)}`).join(", ");
  const tell = () => {
    reading.textContent = signed ? `Strongest: ${strongest()}` : `${place(query)[0].toUpperCase()}${place(query).slice(1)} looks at: ${strongest()}`;
  };
  frame.classList.toggle("signed", signed);
  root.querySelector(".help").textContent = signed
    ? "Left: the picture · right: what its patches do · click chooses a patch for the next page · arrow keys move it"
    : "Left: the picture · right: where the outlined place looks · click locks another · arrow keys move it";

  // The class token stands above the picture; patches lie on it. `side` 0: the picture, 1: with heat.
  const top = () => (first ? TOKEN + 6 : 0);
  const left = (side) => side * (size + GAP);
  const box = (i, side) => {
    if (i < first) return [left(side), 0, Math.min(size, 92), TOKEN];
    const r = Math.floor((i - first) / columns), c = (i - first) % columns;
    return [left(side) + (c * size) / columns, top() + (r * tall) / rows, size / columns, tall / rows];
  };
  const draw = () => {
    if (!image.complete || !image.naturalWidth) return;
    size = Math.max(90, Math.min(data.largest, Math.floor((frame.clientWidth - GAP - 6) / 2)));
    tall = Math.round((size * image.naturalHeight) / image.naturalWidth);
    const pen = sized(canvas, 2 * size + GAP + 4, top() + tall + 4);
    pen.translate(2, 2);
    const glow = variable(frame, "--glow"), ink = variable(frame, "--st-text-color");
    const most = Math.max(...Array.from({ length: n }, (_, k) => Math.abs(weight(k)))) || 1;
    const supports = variable(frame, "--supports"), opposes = variable(frame, "--opposes");
    root.querySelector(".least").textContent = signed ? `−${most.toFixed(2)}` : "0";
    root.querySelector(".most").textContent = `${signed ? "+" : ""}${most.toFixed(2)}`;
    root.querySelector(".unit").textContent = data.unit;
    root.querySelector(".scale").textContent = signed ? "" : "(square-root scale)";
    pen.imageSmoothingEnabled = image.naturalWidth > size;
    for (const side of [0, 1]) {
      pen.globalAlpha = 1;
      pen.drawImage(image, left(side), top(), size, tall);
      if (side) {
        pen.fillStyle = "rgb(0 0 0 / 45%)";  // so that heat is seen on what is bright
        pen.fillRect(left(side), top(), size, tall);
      }
      if (first) {
        pen.fillStyle = variable(frame, "--st-secondary-background-color");
        pen.fillRect(...box(0, side));
      }
      for (let k = 0; k < n && side; k++) {
        pen.globalAlpha = signed ? (0.9 * Math.abs(weight(k))) / most : 0.85 * Math.sqrt(weight(k) / most);
        pen.fillStyle = !signed ? glow : weight(k) < 0 ? supports : opposes;
        pen.fillRect(...box(k, side));
      }
      pen.globalAlpha = 1;
      if (first) {
        pen.fillStyle = side ? inkOn(glow, 0.85 * Math.sqrt(weight(0) / most), ink, variable(frame, "--st-background-color")) : ink;
        pen.font = `11px ${variable(frame, "--st-font") || "sans-serif"}`;
        pen.textAlign = "center";
        pen.textBaseline = "middle";
        const [x, y, w, h] = box(0, side);
        pen.fillText("class token", x + w / 2, y + h / 2);
      }
      pen.strokeStyle = "rgb(128 128 128 / 55%)";
      pen.lineWidth = 1;
      for (let i = first; i < n; i++) pen.strokeRect(...box(i, side));
    }
    const ring = (i, colour, line) => {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      for (const side of [0, 1]) {
        const [x, y, w, h] = box(i, side);
        pen.strokeRect(x + line / 2, y + line / 2, w - line, h - line);
      }
    };
    if (hovered !== null) ring(hovered, glow, 1.5);
    if (query !== null) ring(query, variable(frame, "--mark"), 3);
  };
  const where = (event) => {
    const at = canvas.getBoundingClientRect(), px = event.clientX - at.left - 2, y = event.clientY - at.top - 2;
    const x = px > size ? px - size - GAP : px;
    if (x < 0 || x >= size) return null;
    if (first && y < TOKEN) return x < Math.min(size, 92) ? 0 : null;
    const r = Math.floor(((y - top()) * rows) / tall), c = Math.floor((x * columns) / size);
    return r >= 0 && r < rows && c >= 0 && c < columns ? first + r * columns + c : null;
  };
  const lock = (i) => {
    query = i;
    draw();
    tell();
    say(reading.textContent);
    setTriggerValue("query", signed ? i + data.first : i);
  };

  followTheme(frame, signal, draw);
  image.addEventListener("load", draw, on);
  image.src = `data:image/png;base64,${data.png}`;
  tell();
  let width = 0;
  const observer = new ResizeObserver(() => { if (frame.clientWidth !== width) { width = frame.clientWidth; draw(); } });
  observer.observe(frame);
  signal.addEventListener("abort", () => observer.disconnect());

  canvas.addEventListener("pointermove", (event) => {
    const at = where(event);
    if (at !== hovered) { hovered = at; draw(); }
    if (at === null) tip.hide(); else tip.show(event, `${place(at)}\n${data.unit} ${written(at, 4)}`);
  }, on);
  canvas.addEventListener("pointerleave", () => { hovered = null; tip.hide(); draw(); }, on);
  canvas.addEventListener("click", (event) => { const at = where(event); if (at !== null) lock(at); }, on);
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (!by) return;
    event.preventDefault();
    const from = query ?? 0, to = from < first ? (by > 0 ? first : from) : from + by;
    const next = to < first ? (first && by < 0 ? 0 : from) : Math.min(n - 1, to);
    if (next !== query) lock(next);
  }, on);
  return () => kept.controller.abort();
}
