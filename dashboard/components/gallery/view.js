const LABEL_LEFT = 30, LABEL_TOP = 16, GAP = 3, BLOCK_GAP = 34, SIDE_RANKED = 78, LABEL_BELOW = 17;

// Where every head's square lies: layers run down, heads run right, long stacks continue in a block beside.
const byLayer = (data, width) => {
  const { blocks, rows, heads } = data;
  const free = width - LABEL_LEFT - (blocks - 1) * BLOCK_GAP - 2;
  const cell = Math.max(14, Math.min(data.largest, Math.floor(free / (blocks * heads))));
  const left = (block) => LABEL_LEFT + block * (heads * cell + BLOCK_GAP);
  return {
    cell,
    width: left(blocks - 1) + heads * cell + 2,
    height: LABEL_TOP + rows * cell + 2,
    left,
    box: (layer, head) => [left(Math.floor(layer / rows)) + head * cell, LABEL_TOP + (layer % rows) * cell],
    at(px, py) {
      for (let block = 0; block < blocks; block++) {
        const head = Math.floor((px - left(block)) / cell), row = Math.floor((py - LABEL_TOP) / cell);
        const layer = block * rows + row;
        if (head >= 0 && head < heads && row >= 0 && row < rows && layer < data.layers) return [layer, head];
      }
      return null;
    },
  };
};

// Heads one after another, as they are ranked, each with a label below.
const ranked = (data, width) => {
  const n = data.order.length, per = Math.max(1, Math.floor((width - 2) / SIDE_RANKED));
  const columns = Math.max(1, Math.min(per, n)), side = SIDE_RANKED, tall = side + LABEL_BELOW;
  const places = new Map(data.order.map((head, i) => [head, i]));
  return {
    cell: side,
    columns,
    width: columns * side + 2,
    height: Math.max(1, Math.ceil(n / columns)) * tall + 2,
    box: (layer, head) => {
      const i = places.get(layer * data.heads + head);
      return i === undefined ? null : [(i % columns) * side + 1, Math.floor(i / columns) * tall + 1];
    },
    at(px, py) {
      const column = Math.floor((px - 1) / side), i = Math.floor((py - 1) / tall) * columns + column;
      if (column < 0 || column >= columns || i < 0 || i >= n) return null;
      return [Math.floor(data.order[i] / data.heads), data.order[i] % data.heads];
    },
  };
};

const arrange = (data, width) => (data.ranked ? ranked : byLayer)(data, width);

const tinted = (image, colour) => {
  const copy = document.createElement("canvas");
  copy.width = image.naturalWidth;
  copy.height = image.naturalHeight;
  const pen = copy.getContext("2d");
  pen.drawImage(image, 0, 0);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = colour;
  pen.fillRect(0, 0, copy.width, copy.height);
  return copy;
};

export default function ({ data, parentElement: root, setTriggerValue }) {
  const [kept, signal] = renew(root);
  const frame = root.querySelector(".frame"), canvas = root.querySelector(".tiles");
  const tip = tooltip(frame), say = speaker(frame), on = { signal };
  const image = new Image();
  let selected = data.selected, hovered = null, cursor = kept.cursor ?? data.selected ?? [0, 0], layout = null;
  frame.setAttribute("aria-label", data.title);
  canvas.setAttribute("aria-label", data.title);
  root.querySelector(".pooled").textContent = data.pooled;
  root.querySelector(".most").textContent = data.most === 1 ? "1" : data.most.toFixed(2);
  root.querySelector(".bar").hidden = !data.legend;
  root.querySelector(".help").hidden = !data.hint;
  frame.classList.toggle("over", data.backdrop !== "");
  root.querySelector(".what").textContent = data.backdrop
    ? "In every square: the picture, and the brighter the colour, the more is looked at that patch"
    : "In every square: rows are queries, columns are keys";
  const behind = data.backdrop ? new Image() : null;

  const name = ([layer, head]) => `${data.letter}${layer}.h${head}`;
  const about = (at) => data.about[at[0] * data.heads + at[1]];
  const same = (a, b) => !!a && !!b && a[0] === b[0] && a[1] === b[1];

  const draw = () => {
    if (!image.complete || !image.naturalWidth || (behind && !(behind.complete && behind.naturalWidth))) return;
    layout = arrange(data, Math.max(200, frame.clientWidth));
    const pen = sized(canvas, layout.width, layout.height), { cell } = layout;
    const text = variable(frame, "--st-text-color"), inner = cell - GAP;
    const sheet = tinted(image, variable(frame, behind ? "--glow" : "--heat"));
    pen.font = `11px ${variable(frame, "--st-font") || "sans-serif"}`;
    pen.imageSmoothingEnabled = false;
    const square = (layer, head, [x, y]) => {
      pen.globalAlpha = 1;
      pen.fillStyle = variable(frame, "--st-secondary-background-color");
      pen.fillRect(x, y, inner, inner);
      if (behind) {
        pen.drawImage(behind, x, y, inner, inner);
        pen.fillStyle = "rgb(0 0 0 / 45%)";  // so that heat is seen on what is bright
        pen.fillRect(x, y, inner, inner);
        pen.globalAlpha = 0.85;
      }
      pen.drawImage(sheet, head * data.tile, layer * data.tall, data.tile, data.tall, x, y, inner, inner);
      if (behind && data.patch >= 0) {
        const w = inner / data.tile, h = inner / data.tall;
        pen.globalAlpha = 1;
        pen.strokeStyle = variable(frame, "--mark");
        pen.lineWidth = 1.5;
        pen.strokeRect(x + (data.patch % data.tile) * w + 1, y + Math.floor(data.patch / data.tile) * h + 1, w - 2, h - 2);
      }
    };
    data.order.forEach((number, i) => {
      const at = [Math.floor(number / data.heads), number % data.heads], place = layout.box(...at);
      square(...at, place);
      pen.fillStyle = text;
      pen.globalAlpha = 0.85;
      pen.textAlign = "left";
      pen.textBaseline = "top";
      pen.fillText(data.labels[i], place[0], place[1] + inner + 2, cell - 2);
    });
    for (let layer = 0; layer < (data.ranked ? 0 : data.layers); layer++) {
      const block = Math.floor(layer / data.rows), row = layer % data.rows;
      pen.fillStyle = text;
      pen.globalAlpha = 0.75;
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      pen.fillText(`L${layer}`, layout.left(block) - 5, LABEL_TOP + (row + 0.5) * cell);
      if (row === 0) {
        pen.textAlign = "center";
        for (let head = 0; head < data.heads; head += Math.ceil(24 / cell))
          pen.fillText(`h${head}`, layout.left(block) + (head + 0.5) * cell, LABEL_TOP / 2);
      }
      for (let head = 0; head < data.heads; head++) square(layer, head, layout.box(layer, head));
    }
    const ring = (at, colour, line) => {
      const place = layout.box(...at);
      if (!place) return;
      const [x, y] = place;
      pen.globalAlpha = 1;
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.strokeRect(x - 1.5, y - 1.5, inner + 3, inner + 3);
    };
    if (hovered) ring(hovered, text, 1.5);
    if (root.activeElement === canvas && canvas.matches(":focus-visible")) ring(cursor, variable(frame, "--st-primary-color"), 2);
    if (selected) ring(selected, variable(frame, "--mark"), 3);
  };
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return layout?.at(event.clientX - box.left, event.clientY - box.top) ?? null;
  };
  const pick = (at) => {
    selected = cursor = kept.cursor = at;
    draw();
    setTriggerValue("pick", name(at));
  };

  followTheme(frame, signal, draw);
  image.addEventListener("load", draw, on);
  image.src = `data:image/png;base64,${data.png}`;
  behind?.addEventListener("load", draw, on);
  if (behind) behind.src = `data:image/png;base64,${data.backdrop}`;
  let width = 0;
  const observer = new ResizeObserver(() => { if (frame.clientWidth !== width) { width = frame.clientWidth; draw(); } });
  observer.observe(frame);
  signal.addEventListener("abort", () => observer.disconnect());

  canvas.addEventListener("pointermove", (event) => {
    const at = where(event);
    if (!same(at, hovered)) { hovered = at; draw(); }
    if (at) tip.show(event, about(at)); else tip.hide();
  }, on);
  canvas.addEventListener("pointerleave", () => { hovered = null; tip.hide(); draw(); }, on);
  canvas.addEventListener("click", (event) => { const at = where(event); if (at) pick(at); }, on);
  canvas.addEventListener("focus", draw, on);
  canvas.addEventListener("blur", draw, on);
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (move) {
      if (data.ranked) {
        if (!data.order.length) return;
        const i = data.order.indexOf(cursor[0] * data.heads + cursor[1]) + move[1] + move[0] * (layout?.columns ?? 1);
        const next = data.order[Math.min(data.order.length - 1, Math.max(0, i))];
        cursor = [Math.floor(next / data.heads), next % data.heads];
      } else {
        cursor = [
          Math.min(data.layers - 1, Math.max(0, cursor[0] + move[0])),
          Math.min(data.heads - 1, Math.max(0, cursor[1] + move[1])),
        ];
      }
      kept.cursor = cursor;
      say(about(cursor));
      draw();
    } else if (event.key === "Enter" || event.key === " ") pick(cursor);
    else return;
    event.preventDefault();
  }, on);
  return () => kept.controller.abort();
}
