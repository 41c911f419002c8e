const SIDE = 38, GAP = 5;

export default function ({ data, parentElement: root, setTriggerValue }) {
  const [kept, signal] = renew(root);
  const frame = root.querySelector(".frame"), canvas = root.querySelector(".sheet"), on = { signal };
  const tip = tooltip(frame), say = speaker(frame), image = new Image(), n = data.index.length;
  const tall = Math.round((SIDE * data.tall) / data.wide);
  let columns = 1, hovered = null, cursor = Math.max(0, data.index.indexOf(data.selected));
  frame.setAttribute("aria-label", data.title);
  canvas.setAttribute("aria-label", `${data.title}: ${n} pictures`);

  const about = (i) => `${data.index[i]}: shows ${data.labels[i]}`;
  const corner = (i) => [2 + (i % columns) * (SIDE + GAP), 2 + Math.floor(i / columns) * (tall + GAP)];
  const draw = () => {
    if (!image.complete || !image.naturalWidth) return;
    columns = Math.max(1, Math.floor((Math.max(frame.clientWidth, SIDE + GAP) - 4 + GAP) / (SIDE + GAP)));
    const pen = sized(canvas, columns * (SIDE + GAP) + 4, Math.ceil(n / columns) * (tall + GAP) + 4);
    pen.imageSmoothingEnabled = data.wide > SIDE;
    for (let i = 0; i < n; i++) pen.drawImage(image, 0, i * data.tall, data.wide, data.tall, ...corner(i), SIDE, tall);
    const ring = (i, colour, line) => {
      const [x, y] = corner(i);
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.strokeRect(x - 1, y - 1, SIDE + 2, tall + 2);
    };
    if (hovered !== null) ring(hovered, variable(frame, "--st-text-color"), 1.5);
    if (root.activeElement === canvas && canvas.matches(":focus-visible")) ring(cursor, variable(frame, "--st-primary-color"), 2);
    const chosen = data.index.indexOf(data.selected);
    if (chosen >= 0) ring(chosen, variable(frame, "--mark"), 3);
  };
  const where = (event) => {
    const at = canvas.getBoundingClientRect(), c = Math.floor((event.clientX - at.left - 2) / (SIDE + GAP));
    const i = Math.floor((event.clientY - at.top - 2) / (tall + GAP)) * columns + c;
    return c >= 0 && c < columns && i >= 0 && i < n ? i : null;
  };
  const pick = (i) => { cursor = i; setTriggerValue("pick", data.index[i]); };

  followTheme(frame, signal, draw);
  image.addEventListener("load", draw, on);
  image.src = `data:image/png;base64,${data.png}`;
  let width = 0;
  const observer = new ResizeObserver(() => { if (frame.clientWidth !== width) { width = frame.clientWidth; draw(); } });
  observer.observe(frame);
  signal.addEventListener("abort", () => observer.disconnect());

  canvas.addEventListener("pointermove", (event) => {
    const at = where(event);
    if (at !== hovered) { hovered = at; draw(); }
    if (at === null) tip.hide(); else tip.show(event, about(at));
  }, on);
  canvas.addEventListener("pointerleave", () => { hovered = null; tip.hide(); draw(); }, on);
  canvas.addEventListener("click", (event) => { const at = where(event); if (at !== null) pick(at); }, on);
  canvas.addEventListener("focus", draw, on);
  canvas.addEventListener("blur", draw, on);
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (by) {
      cursor = Math.min(n - 1, Math.max(0, cursor + by));
      say(about(cursor));
      draw();
    } else if (event.key === "Enter" || event.key === " ") pick(cursor);
    else return;
    event.preventDefault();
  }, on);
  return () => kept.controller.abort();
}
