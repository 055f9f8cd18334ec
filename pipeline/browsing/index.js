// The search over all rows of a build: what is chosen is kept in the address, to be passed on.
{
  const names = JSON.parse(document.getElementById("names").textContent);
  const lines = JSON.parse(document.getElementById("lines").textContent);
  const kinds = ["step", "reason", "source", "type"];
  const [PAGE, ROW, ID, FIRST_KIND, TEXT, QUESTION_LENGTH] = [0, 1, 2, 3, 7, 8];
  const [MOST_SHOWN, MOST_CHARACTERS] = [200, 160];
  const form = document.getElementById("find");
  const output = form.querySelector("output");
  const body = document.querySelector("#found tbody");
  const lower = new Map();

  for (const [place, kind] of kinds.entries()) {
    const counts = new Map();
    for (const line of lines) {
      const number = line[FIRST_KIND + place];
      counts.set(number, (counts.get(number) ?? 0) + 1);
    }
    for (const [number, name] of names[kind].entries()) {
      if (name === "") continue;
      form.elements[kind].add(new Option(`${name} (${counts.get(number) ?? 0})`, String(number)));
    }
  }

  function textOf(line) {
    if (!lower.has(line)) lower.set(line, `${line[ID]} ${line[TEXT]}`.toLowerCase());
    return lower.get(line);
  }

  function cell(row, text) {
    row.insertCell().textContent = text;
  }

  function show() {
    const words = form.elements.text.value.trim().toLowerCase();
    const wanted = kinds.map((kind) => form.elements[kind].value);
    const found = lines.filter((line) =>
      wanted.every((value, place) => value === "" || line[FIRST_KIND + place] === Number(value))
      && (words === "" || textOf(line).includes(words)));
    const rows = found.slice(0, MOST_SHOWN).map((line) => {
      const row = document.createElement("tr");
      const link = document.createElement("a");
      link.href = `${names.pages[line[PAGE]]}#${encodeURIComponent(line[ID])}`;
      link.textContent = line[ROW];
      row.insertCell().append(link);
      const [step, reason, , type] = kinds.map((kind, place) => names[kind][line[FIRST_KIND + place]]);
      cell(row, reason === "" ? step : `${step}: ${reason}`);
      cell(row, type);
      cell(row, line[TEXT].slice(0, line[QUESTION_LENGTH] || MOST_CHARACTERS).slice(0, MOST_CHARACTERS));
      return row;
    });
    body.replaceChildren(...rows);
    const more = found.length > MOST_SHOWN ? `, the first ${MOST_SHOWN} below` : "";
    output.textContent = `${found.length} of ${lines.length} rows${more}`;
  }

  function remember() {
    const chosen = new URLSearchParams();
    for (const name of [...kinds, "text"]) {
      if (form.elements[name].value !== "") chosen.set(name, form.elements[name].value);
    }
    try {
      history.replaceState(null, "", `#${chosen}`);
    } catch (error) {
      if (error.name !== "SecurityError") throw error; // some browsers forbid it for local files
    }
  }

  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const kind of kinds) {
      const select = form.elements[kind];
      const value = given.get(kind) ?? "";
      select.value = [...select.options].some((option) => option.value === value) ? value : "";
    }
    form.elements.text.value = given.get("text") ?? "";
    show();
  }

  form.addEventListener("input", () => { show(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", read);
  read();
}
