// The page's backend where it is a file: decisions are kept in this browser, and downloaded.

const data = JSON.parse(document.getElementById("review-data").textContent);
const key = `hf-score ${data.selection.dataset_fingerprint} ${data.selection.model_fingerprint} ${data.key}`;
let decisions = data.decisions;
const actions = [];
try { decisions = JSON.parse(localStorage.getItem(key)) ?? decisions; } catch { /* a browser that keeps nothing */ }
const final = (row) => ["person", "file"].includes(decisions[row]?.[1]);

function answer(changed) {
  try { localStorage.setItem(key, JSON.stringify(decisions)); } catch { /* the download still has it */ }
  return { changed, can_undo: actions.length > 0 };
}

const answerFor = (rows) => answer(Object.fromEntries(rows.map((row) => [row, decisions[row] ?? null])));

function download() {
  const made = Object.entries(decisions).map(([row, [verdict, decided_by, note, shortcut]]) => (
    { idx: data.idx[row], label: data.label[row], verdict, decided_by, note, shortcut: shortcut ?? "" }
  ));
  const created = new Date().toISOString().slice(0, 19) + "+00:00";
  const text = JSON.stringify({ ...data.selection, decisions: made, created }, null, 2) + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "selection.json";
  link.click();
}

document.getElementById("download").addEventListener("click", download);
startReview(document.querySelector(".hfs"), {
  words: { saved: "Kept in this browser.", done: "All decided: download selection.json." },
  load: async () => data,
  picture: (kind, row) => data.pictures[`${kind}/${row}`],
  open: async () => answer(decisions),
  refresh: async () => answer({}),
  decide: async ({ rows, verdict, notes, shortcut, undecided_only }) => {
    const chosen = undecided_only ? rows.filter((row) => !final(row)) : rows;
    if (chosen.length) actions.push(chosen.map((row) => [row, decisions[row]]));
    for (const row of chosen) {
      const [, , note, name] = decisions[row] ?? [];
      decisions[row] = [verdict, "person", notes[row] ?? note ?? "", verdict === "spurious" ? shortcut || name || "" : ""];
    }
    return answerFor(chosen);
  },
  amend: async ({ rows, note, shortcut }) => {
    const chosen = rows.filter(final);
    for (const row of chosen) {
      const [verdict, by, was, name] = decisions[row];
      decisions[row] = [verdict, by, note ?? was, verdict === "spurious" ? shortcut ?? name ?? "" : ""];
    }
    return answerFor(chosen);
  },
  undo: async () => {
    const undone = actions.pop() ?? [];
    for (const [row, before] of undone) {
      if (before) decisions[row] = before;
      else delete decisions[row];
    }
    return answerFor(undone.map(([row]) => row));
  },
});
