"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const [task, arm, outcome] = [byId("pick-task"), byId("pick-arm"), byId("pick-outcome")];
  const titles = Object.fromEntries(data.arms.map((a) => [a.id, a.title]));
  let shown = [];
  let at = 0;

  const option = (select, value, text) => select.append(new Option(text, value));
  option(task, "", "every scenario");
  for (const id of Object.keys(data.scenarios)) option(task, id, id);
  option(arm, "", "every arm");
  for (const a of data.arms) option(arm, a.id, a.title);
  option(outcome, "", "every outcome");
  for (const word of [...new Set(data.samples.map((s) => s.outcome))].sort()) option(outcome, word, word);

  const element = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // Which code points of the program a finding covers; lines and columns count from 1.
  const covered = (program, findings) => {
    const starts = [0];
    program.forEach((c, i) => { if (c === "\n") starts.push(i + 1); });
    const place = (line, column) => (line - 1 < starts.length ? starts[line - 1] + column - 1 : program.length);
    const marks = new Array(program.length).fill("");
    for (const f of findings) {
      const end = Math.min(place(f.end_line, f.end_column), program.length);
      for (let i = place(f.line, f.column); i < end; i++) marks[i] = `${f.rule}: ${f.message}`;
    }
    return marks;
  };

  const code = (sample, prompt) => {
    const pre = element("pre");
    const head = [...prompt];
    const program = head.concat([...sample.completion]);
    const marks = covered(program, sample.findings);
    const tokenOf = new Array(program.length).fill(-1);
    let i = head.length;
    sample.tokens.forEach(([length], t) => { for (let n = 0; n < length && i < program.length; n++) tokenOf[i++] = t; });
    for (let from = 0; from < program.length;) {
      let to = from + 1;
      const same = (k) => tokenOf[k] === tokenOf[from] && marks[k] === marks[from] && (k < head.length) === (from < head.length);
      while (to < program.length && same(to)) to++;
      const span = element("span", from < head.length ? "prompt" : "", program.slice(from, to).join(""));
      const hints = [];
      if (tokenOf[from] >= 0) {
        const p = sample.tokens[tokenOf[from]][1];
        hints.push(`probability ${p} %`);
        const doubt = (100 - p) / 100;
        if (doubt > 0.02) span.style.background = `rgb(224 150 30 / ${(doubt * 0.45).toFixed(2)})`;
      }
      if (marks[from]) { span.classList.add("finding"); hints.push(marks[from]); }
      if (hints.length) span.title = hints.join("\n");
      pre.append(span);
      from = to;
    }
    return pre;
  };

  const draw = () => {
    const box = byId("sample");
    box.replaceChildren();
    byId("position").textContent = shown.length ? `${at + 1} of ${shown.length}` : "none";
    if (!shown.length) return;
    const sample = shown[at];
    const scenario = data.scenarios[sample.task] || { prompt: "", instruction: "" };
    const head = element("p");
    head.append(element("span", `badge ${sample.outcome.split(",")[0]}`, sample.outcome), " ",
      element("strong", "", titles[sample.arm] || sample.arm), ` · ${sample.task} · sample ${sample.index}`);
    box.append(head, element("p", "facts", [scenario.instruction, ...sample.facts].filter(Boolean).join(" · ")),
      code(sample, scenario.prompt));
    if (sample.findings.length) {
      const list = element("ul", "findings");
      for (const f of sample.findings) list.append(element("li", "", `line ${f.line}: ${f.rule}: ${f.message}`));
      box.append(list);
    }
  };

  const filter = () => {
    shown = data.samples.filter((s) => (!task.value || s.task === task.value) && (!arm.value || s.arm === arm.value)
      && (!outcome.value || s.outcome === outcome.value));
    at = 0;
    draw();
  };
  const step = (by) => { if (shown.length) { at = (at + by + shown.length) % shown.length; draw(); } };
  for (const select of [task, arm, outcome]) select.addEventListener("change", filter);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));

  const table = byId("scenario-table");
  table.tHead.querySelectorAll("th").forEach((th, column) => th.addEventListener("click", () => {
    const up = th.classList.contains("sorted") && !th.classList.contains("up");
    table.tHead.querySelectorAll("th").forEach((other) => other.classList.remove("sorted", "up"));
    th.classList.add("sorted");
    th.classList.toggle("up", up);
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => a.cells[column].textContent.localeCompare(b.cells[column].textContent, undefined, { numeric: true }) * (up ? -1 : 1));
    table.tBodies[0].append(...rows);
  }));
  table.tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (!row) return;
    task.value = row.dataset.task;
    arm.value = outcome.value = "";
    filter();
    byId("samples").scrollIntoView();
  });
  filter();
})();
