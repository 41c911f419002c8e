export default function ({ data, parentElement: root, setTriggerValue }) {
  const [kept, signal] = renew(root);
  const frame = root.querySelector(".frame"), list = root.querySelector(".columns"), on = { signal };
  const tip = tooltip(frame), say = speaker(frame);
  const n = data.sides[0].tokens.length, differs = new Set(data.differs);
  const typing = root.activeElement?.classList?.contains("column");
  const clickable = data.hint !== "", graded = data.sides.some((side) => side.expected.some((p) => p !== null));
  let chosen = clickable ? data.position : -1;
  root.querySelector(".colour").hidden = !graded;
  root.querySelector(".help").hidden = !clickable;
  root.querySelector(".help").textContent = `${data.hint} · arrow keys move it`;
  frame.setAttribute("aria-label", data.title);
  list.setAttribute("aria-label", data.title);

  const element = (kind, name, text) => {
    const made = document.createElement(kind);
    made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const share = (p) => (p === null ? "the first token is given" : `probability ${p < 0.0005 ? p.toExponential(1) : p.toFixed(3)}`);
  const about = (i) =>
    data.sides.map((side) => `${data.sides.length > 1 ? `${side.label}: ` : ""}“${visible(side.tokens[i])}”${graded ? `, ${share(side.expected[i])}` : ""}`).join("\n");

  const difference = root.querySelector(".difference");
  difference.replaceChildren();
  if (data.sides.length > 1) {
    const first = data.differs[0];
    if (first === undefined) difference.textContent = "the prompts are the same";
    else {
      difference.append(element("span", "sign", "═ differs"));
      difference.append(`: first at position ${first}, ${data.differs.length} in all`);
    }
  }

  const columns = data.sides[0].tokens.map((_, i) => {
    const column = element("div", "column");
    column.setAttribute("role", "option");
    column.append(element("span", "number", i === data.differs[0] ? `${i} first` : `${i}`));
    for (const side of data.sides) column.append(element("span", "token", visible(side.tokens[i]) || "∅"));
    column.classList.toggle("differs", differs.has(i));
    column.classList.toggle("first", i === data.differs[0]);
    if (clickable) column.addEventListener("click", () => choose(i), on);
    else column.style.cursor = "default";
    column.addEventListener("pointermove", (event) => tip.show(event, `position ${i}\n${about(i)}`), on);
    column.addEventListener("pointerleave", () => tip.hide(), on);
    return column;
  });
  const names = element("div", "labels");
  names.setAttribute("aria-hidden", "true");
  names.append(element("span", "number", ""));
  if (data.sides.length > 1) for (const side of data.sides) names.append(element("span", "", side.label));
  list.replaceChildren(...(data.sides.length > 1 ? [names] : []), ...columns);

  const paint = () => {
    const heat = variable(frame, "--heat"), paper = variable(frame, "--st-background-color");
    const ink = variable(frame, "--st-text-color");
    columns.forEach((column, i) => {
      [...column.querySelectorAll(".token")].forEach((token, s) => {
        const strong = Math.round(85 * Math.sqrt(data.sides[s].expected[i] ?? 0));
        token.style.setProperty("--shade", `color-mix(in srgb, ${heat} ${strong}%, transparent)`);
        token.style.color = inkOn(heat, strong / 100, ink, paper);
      });
      column.classList.toggle("chosen", i === chosen);
      column.setAttribute("aria-selected", i === chosen);
      column.setAttribute("tabindex", i === chosen ? 0 : -1);
      column.setAttribute("aria-label", `position ${i}. ${about(i).replace("\n", ". ")}${differs.has(i) ? ". differs" : ""}`);
    });
  };
  const choose = (i) => {
    chosen = i;
    paint();
    say(about(i));
    setTriggerValue("position", i);
  };

  followTheme(frame, signal, paint);
  paint();
  if (typing) columns[chosen]?.focus({ preventScroll: true });
  list.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!by || !clickable) return;
    event.preventDefault();
    const next = Math.min(n - 1, Math.max(0, chosen + by));
    if (next !== chosen) choose(next);
    columns[next].focus();
  }, on);
  return () => kept.controller.abort();
}
