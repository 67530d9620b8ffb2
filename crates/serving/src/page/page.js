// What live pages share: cells, tables, the state at their top, and asking each second while the page is looked at.
const page = (() => {
  "use strict";
  const $ = (id) => document.getElementById(id);

  const cell = (text, kind) => {
    const td = document.createElement("td");
    td.textContent = text;
    if (kind) td.className = kind;
    return td;
  };

  const fill = (id, rows) => {
    const body = rows.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells);
      return row;
    });
    document.querySelector(`#${id} tbody`).replaceChildren(...body);
  };

  const say = (status, good, summary, problem) => {
    $("status").textContent = status;
    $("status").className = `state ${good ? "good" : "bad"}`;
    $("summary").textContent = summary;
    $("problem").hidden = !problem;
    $("problem").textContent = problem ?? "";
  };

  const follow = (url, show) => {
    const ask = async () => {
      if (document.hidden) return;
      try {
        const answer = await fetch(url, { cache: "no-store" });
        if (!answer.ok) throw new Error(String(answer.status));
        show(await answer.json());
      } catch {
        $("status").textContent = "podkit doesn't answer";
        $("status").className = "state bad";
      }
    };
    ask();
    setInterval(ask, 1000);
  };

  return { $, cell, fill, say, follow };
})();
