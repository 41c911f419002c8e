// Shared by the components of the dashboard. Text reaches the page through textContent only.

const isDark = (frame) => {
  const [r, g, b] = (getComputedStyle(frame).backgroundColor.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
  return 0.299 * r + 0.587 * g + 0.114 * b < 128;
};

// Marks the frame as light or dark; calls back when the page's theme changes.
const followTheme = (frame, signal, changed) => {
  const set = () => {
    const dark = isDark(frame);
    const was = frame.classList.contains("dark");
    frame.classList.toggle("dark", dark);
    return dark !== was;
  };
  set();
  const timer = setInterval(() => { if (set()) changed(); }, 700);
  signal.addEventListener("abort", () => clearInterval(timer));
};

const variable = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();

// Which of two colours can be read on `share` of `shade` over `paper`: the one of the larger contrast (WCAG 2).
const inkOn = (() => {
  const known = new Map();
  const parts = (colour) => {
    if (!known.has(colour)) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 1;
      const pen = canvas.getContext("2d");
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      known.set(colour, [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255));
    }
    return known.get(colour);
  };
  const light = (rgb) =>
    rgb.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  return (shade, share, text, paper) => {
    const below = parts(paper), over = parts(shade);
    const ground = light(below.map((v, i) => v + (over[i] - v) * share));
    const contrast = (colour) => {
      const ink = light(parts(colour));
      return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    };
    return contrast(text) >= contrast(paper) ? text : paper;
  };
})();

// A tooltip inside `frame`, kept within its width.
const tooltip = (frame) => {
  const tip = frame.querySelector(".tip");
  return {
    show(event, text) {
      const box = frame.getBoundingClientRect();
      tip.textContent = text;
      tip.style.display = "block";
      const x = event.clientX - box.left + 14;
      tip.style.left = `${Math.max(0, Math.min(x, box.width - tip.offsetWidth - 4))}px`;
      const below = event.clientY - box.top + 16;
      const fits = below + tip.offsetHeight < box.height;
      tip.style.top = `${fits ? below : event.clientY - box.top - tip.offsetHeight - 10}px`;
    },
    hide() { tip.style.display = "none"; },
  };
};

// What a screen reader should hear now.
const speaker = (frame) => {
  const line = frame.querySelector(".said");
  return (text) => { if (line.textContent !== text) line.textContent = text; };
};

// Spaces and line breaks made visible, for labels and tooltips.
const visible = (token) => token.replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\t/g, "⇥");

// Tokens as running text: where the tokens themselves carry no spaces (vocabularies of words), a space between them.
const spaced = (spans, tokens) =>
  tokens.some((token) => /^\s|\s$/.test(token))
    ? spans
    : spans.flatMap((span, i) => (i ? [" ", span] : [span]));

// State that survives reruns of the page; listeners of the previous run are dropped.
const renew = (root) => {
  const kept = (root.kept ??= {});
  kept.controller?.abort();
  kept.controller = new AbortController();
  return [kept, kept.controller.signal];
};

// A canvas sized in CSS pixels and sharp on every screen.
const sized = (canvas, width, height) => {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
};
