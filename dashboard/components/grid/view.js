const SMALLEST = 7, LOWEST = 13, ROOM_FOR_TEXT = 24;

const numbers = (packed) => {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
};

const cut = (pen, text, room) => {
  if (pen.measureText(text).width <= room) return text;
  let end = text.length;
  while (end > 1 && pen.measureText(`${text.slice(0, end)}…`).width > room) end--;
  return `${text.slice(0, end)}…`;
};

const signed = (value, sign) => `${sign && value > 0 ? "+" : ""}${Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(3)}`.replace("-", "−");

export default function ({ data, parentElement: root, setTriggerValue }) {
  const [kept, signal] = renew(root);
  const frame = root.querySelector(".frame"), canvas = root.querySelector(".cells"), on = { signal };
  const tip = tooltip(frame), say = speaker(frame), values = numbers(data.packed);
  const nr = data.rows.length, nc = data.columns.length;
  const ramp = root.querySelector(".ramp");
  let selected = data.selected, hovered = null, drawn = null, layout = null;
  const held = kept.cursor && kept.cursor[0] < nr && kept.cursor[1] < nc ? kept.cursor : null;
  let cursor = data.selected ?? held ?? [0, 0];
  frame.setAttribute("aria-label", data.title);
  canvas.setAttribute("aria-label", `${data.title}: ${nr} rows by ${nc} columns`);
  root.querySelector(".unit").textContent = data.unit;
  const beyond = (sign) => values.some((v) => sign * v > 1.001 * data.bound);
  root.querySelector(".low").textContent = data.diverging ? (beyond(-1) ? "≤ " : "") + signed(-data.bound, true) : "0";
  root.querySelector(".high").textContent = (beyond(1) ? "≥ " : "") + signed(data.bound, data.diverging);
  ramp.classList.toggle("diverging", data.diverging);
  ramp.classList.toggle("flip", data.flip);

  const index = ([r, c]) => r * nc + c;
  const same = (a, b) => !!a && !!b && a[0] === b[0] && a[1] === b[1];
  const about = (at) => {
    const i = index(at), value = values[i];
    const lines = [`${visible(data.rows[at[0]])}, ${visible(data.columns[at[1]])}`];
    if (data.texts.length) lines.push(visible(data.texts[i]));
    lines.push(Number.isNaN(value) ? "nothing here" : `${data.unit} ${signed(value, data.diverging)}`);
    if (data.about.length && data.about[i]) lines.push(data.about[i]);
    return lines.join("\n");
  };

  const measure = (pen) => {
    const left = Math.min(96, Math.ceil(Math.max(...data.rows.map((t) => pen.measureText(visible(t)).width)))) + 8;
    const room = Math.max(200, frame.clientWidth) - left - 4;
    const width = Math.max(SMALLEST, Math.min(data.largest[0], Math.floor((room - 20) / nc)));
    const height = Math.max(LOWEST, Math.min(data.largest[1], Math.round(500 / nr)));
    const names = data.columns.map(visible);
    const longest = Math.min(100, Math.max(...names.map((t) => pen.measureText(t).width)));
    const slanted = longest > width - 2;
    const every = slanted ? Math.ceil(13 / width) : 1;
    return { left, width, height, longest, slanted, every, names, bottom: slanted ? Math.ceil(longest * 0.87) + 14 : 18 };
  };
  const box = ([r, c]) => [layout.left + c * layout.width, (data.up ? nr - 1 - r : r) * layout.height];

  // The unmarked picture, kept so that hovering only repaints the marks.
  const base = () => {
    const picture = document.createElement("canvas");
    const font = (size) => `${size}px ${variable(frame, "--st-font") || "sans-serif"}`;
    const probe = picture.getContext("2d");
    probe.font = font(11);
    layout = measure(probe);
    const { left, width, height } = layout;
    const pen = sized(picture, left + nc * width + (layout.slanted ? layout.longest * 0.5 + 6 : 4), nr * height + layout.bottom);
    const text = variable(frame, "--st-text-color"), paper = variable(frame, "--st-background-color");
    const line = width >= 6 ? 1 : 0;
    const colour = (value) => variable(frame, !data.diverging ? "--heat" : value < 0 === !data.flip ? "--supports" : "--opposes");
    const negative = colour(-1), positive = colour(1);
    for (let r = 0; r < nr; r++) for (let c = 0; c < nc; c++) {
      const value = values[index([r, c])], [x, y] = box([r, c]);
      pen.globalAlpha = 0.6;
      pen.fillStyle = variable(frame, "--st-secondary-background-color");
      if (!Number.isNaN(value)) pen.fillRect(x, y, width - line, height - line);
      const share = Math.min(1, Math.abs(value) / data.bound);
      pen.globalAlpha = Number.isNaN(value) ? 0 : share;
      pen.fillStyle = value < 0 ? negative : positive;
      pen.fillRect(x, y, width - line, height - line);
      if (data.texts.length && width >= ROOM_FOR_TEXT) {
        pen.globalAlpha = 1;
        pen.fillStyle = inkOn(value < 0 ? negative : positive, Number.isNaN(value) ? 0 : share, text, paper);
        pen.font = font(Math.min(11, height - 3));
        pen.textAlign = "left";
        pen.textBaseline = "middle";
        pen.fillText(cut(pen, visible(data.texts[index([r, c])]), width - 5), x + 2, y + height / 2);
      }
    }
    pen.globalAlpha = 1;
    pen.font = font(11);
    pen.fillStyle = text;
    pen.textBaseline = "middle";
    for (let r = 0; r < nr; r += Math.ceil(12 / height)) {
      pen.textAlign = "right";
      pen.fillText(cut(pen, visible(data.rows[r]), left - 6), left - 5, box([r, 0])[1] + height / 2);
    }
    for (let c = 0; c < nc; c += layout.every) {
      pen.save();
      pen.translate(left + (c + 0.5) * width, nr * height + (layout.slanted ? 6 : 9));
      if (layout.slanted) pen.rotate(Math.PI / 3);
      pen.textAlign = layout.slanted ? "left" : "center";
      pen.fillText(cut(pen, layout.names[c], layout.longest + 1), 0, 0);
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
    const ring = (at, colour, thick) => {
      const [x, y] = box(at);
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.strokeRect(x + thick / 2 - 1, y + thick / 2 - 1, layout.width + 1 - thick, layout.height + 1 - thick);
    };
    if (hovered) ring(hovered, variable(frame, "--st-text-color"), 1.5);
    if (selected) ring(selected, variable(frame, "--mark"), 2.5);
    if (root.activeElement === canvas && canvas.matches(":focus-visible")) ring(cursor, variable(frame, "--st-primary-color"), 2);
  };
  const draw = () => {
    drawn = base();
    canvas.width = drawn.width;
    canvas.height = drawn.height;
    canvas.style.width = drawn.style.width;
    canvas.style.height = drawn.style.height;
    mark();
  };
  const where = (event) => {
    const place = canvas.getBoundingClientRect();
    const c = Math.floor((event.clientX - place.left - layout.left) / layout.width);
    const y = Math.floor((event.clientY - place.top) / layout.height), r = data.up ? nr - 1 - y : y;
    return r >= 0 && c >= 0 && r < nr && c < nc ? [r, c] : null;
  };
  const pick = (at) => {
    selected = cursor = kept.cursor = at;
    mark();
    setTriggerValue("pick", at);
  };

  followTheme(frame, signal, draw);
  draw();
  let wide = frame.clientWidth;
  const observer = new ResizeObserver(() => { if (frame.clientWidth !== wide) { wide = frame.clientWidth; draw(); } });
  observer.observe(frame);
  signal.addEventListener("abort", () => observer.disconnect());

  canvas.addEventListener("pointermove", (event) => {
    const at = where(event);
    if (!same(at, hovered)) { hovered = at; mark(); }
    if (at) tip.show(event, about(at)); else tip.hide();
  }, on);
  canvas.addEventListener("pointerleave", () => { hovered = null; tip.hide(); mark(); }, on);
  canvas.addEventListener("click", (event) => { const at = where(event); if (at) pick(at); }, on);
  canvas.addEventListener("focus", mark, on);
  canvas.addEventListener("blur", mark, on);
  canvas.addEventListener("keydown", (event) => {
    const up = data.up ? 1 : -1;
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [up, 0], ArrowDown: [-up, 0] }[event.key];
    if (move) {
      cursor = [
        Math.min(nr - 1, Math.max(0, cursor[0] + move[0])),
        Math.min(nc - 1, Math.max(0, cursor[1] + move[1])),
      ];
      kept.cursor = cursor;
      say(about(cursor).replace(/\n/g, ". "));
      mark();
    } else if (event.key === "Enter" || event.key === " ") pick(cursor);
    else return;
    event.preventDefault();
  }, on);
  return () => kept.controller.abort();
}
