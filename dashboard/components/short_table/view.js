const element = (kind, name, text) => {
  const made = document.createElement(kind);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};

const line = (data, texts, kind, share) => {
  const row = document.createElement("tr");
  texts.forEach((text, column) => {
    const bar = column === data.bar;
    const made = element(kind, bar ? "share" : data.right[column] ? "right" : "", text);
    if (bar && share !== undefined) {
      const length = element("span", "length");
      length.style.setProperty("--part", `${100 * Math.min(1, Math.max(0, share))}%`);
      made.replaceChildren(length, element("span", "figure", text));
    }
    row.append(made);
  });
  return row;
};

export default function ({ data, parentElement: root }) {
  const [kept, signal] = renew(root), frame = root.querySelector(".tables");
  frame.replaceChildren(...data.tables.map((one) => {
    const table = element("table", "short"), head = element("thead", ""), body = element("tbody", "");
    table.setAttribute("aria-label", one.title);
    head.append(line(one, one.heads, "th"));
    body.append(...one.rows.map((texts, i) => line(one, texts, "td", one.shares[i])));
    table.append(head, body);
    return table;
  }));
  followTheme(frame, signal, () => {});
  return () => kept.controller.abort();
}
