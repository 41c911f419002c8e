export default function ({ data, parentElement: root, setTriggerValue }) {
  const [kept, signal] = renew(root);
  const frame = root.querySelector(".frame"), list = root.querySelector(".passages"), on = { signal };
  const tip = tooltip(frame);
  frame.setAttribute("aria-label", data.title);
  list.setAttribute("aria-label", data.title);

  const made = (kind, name, text = "") => {
    const one = document.createElement(kind);
    one.className = name;
    one.textContent = text;
    return one;
  };
  const rows = data.passages.map((passage, number) => {
    const row = made("div", "passage"), words = made("span", "words");
    const token = (i) => `“${visible(passage.tokens[i])}”`;
    row.setAttribute("role", "listitem");
    row.setAttribute("tabindex", 0);
    row.setAttribute("aria-label", `${passage.label}: ${token(passage.query)} looks most at ${token(passage.key)} in ${passage.tokens.join("")}`);
    const spans = passage.tokens.map((text, i) => {
      const span = made("span", i === passage.query ? "token query" : "token", text);
      span.addEventListener("pointermove", (event) => tip.show(event, `${i} ${visible(text)}\nattention ${passage.weights[i].toFixed(3)}`), on);
      span.addEventListener("pointerleave", () => tip.hide(), on);
      return span;
    });
    words.append(...spaced(spans, passage.tokens));
    row.append(made("span", "label", `${passage.label}\n${token(passage.query)} → ${token(passage.key)}`), words);
    row.querySelector(".label").style.whiteSpace = "pre-line";
    row.addEventListener("click", () => setTriggerValue("pick", number), on);
    row.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      setTriggerValue("pick", number);
    }, on);
    return { row, spans, passage };
  });
  list.replaceChildren(...rows.map(({ row }) => row));

  const paint = () => {
    const heat = variable(frame, "--heat"), paper = variable(frame, "--st-background-color");
    const ink = variable(frame, "--st-text-color");
    for (const { spans, passage } of rows)
      spans.forEach((span, i) => {
        const share = Math.round(85 * Math.sqrt(passage.weights[i]));
        span.style.setProperty("--shade", `color-mix(in srgb, ${heat} ${share}%, transparent)`);
        span.style.color = inkOn(heat, share / 100, ink, paper);
      });
  };
  followTheme(frame, signal, paint);
  paint();
  return () => kept.controller.abort();
}
