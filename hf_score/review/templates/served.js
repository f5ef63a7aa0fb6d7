// The page's backend where a server answers. A tab has its own undo, and keeps it when it is reloaded.

const session = sessionStorage.getItem("hf-score") ?? crypto.randomUUID();
sessionStorage.setItem("hf-score", session);
let key = "";

async function post(action, change = {}) {
  const body = JSON.stringify({ session, ...change });
  const reply = await fetch(`decisions/${action}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    keepalive: body.length < 60000, // so that it arrives though the tab is closed; browsers keep no more than that
  });
  if (!reply.ok && reply.status !== 409) throw new Error(`${reply.status} ${reply.statusText}`); // 409 says what is wrong
  return reply.json();
}

async function original(row) {
  const reply = await fetch(`originals/${key}/${row}`);
  if (reply.ok) return { url: URL.createObjectURL(await reply.blob()) };
  return reply.status === 409 ? reply.json() : { error: "The original cannot be read." };
}

startReview(document.querySelector(".hfs"), {
  load: async () => {
    const data = await (await fetch("data.json")).json();
    key = data.key;
    return data;
  },
  picture: (kind, row, small) => `pictures/${key}/${kind}/${row}${small ? "?small=1" : ""}`,
  original,
  open: () => post("open"),
  decide: (change) => post("decide", change),
  amend: (change) => post("amend", change),
  undo: () => post("undo"),
  refresh: () => post("refresh"),
});
