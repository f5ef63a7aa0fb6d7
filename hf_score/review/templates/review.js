// The review page. It shows what `backend` gives it and writes only through `backend`: a server, or a file.
// Names from data become text, never markup.

function startReview(root, backend) {
  const at = {};
  for (const node of root.querySelectorAll("[data-at]")) at[node.dataset.at] = node;
  const FINAL = ["person", "file"]; // what others wrote is a suggestion
  const SILENT = "Not saved: the server does not answer. Start hf-score review again and reload this page.";
  const words = backend.words ?? { saved: "Saved.", done: "All decided, and saved in selection.json." };
  let data, clusters, clusterOf, current, whole = false, filter = null, history = [], queue = Promise.resolve();
  const decisions = new Map(); // row to [verdict, decided by, note]

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  const finalVerdict = (row) => (FINAL.includes(decisions.get(row)?.[1]) ? decisions.get(row)[0] : null);
  const className = (label) => data.classes[label] ?? `class ${label}`;
  const clusterName = (cluster) => (cluster.number < 0 ? "no cluster" : `cluster ${cluster.number}`);
  const visible = () => clusters.filter((cluster) => filter === null || cluster.label === filter);
  const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const percent = (part, whole) => (whole ? Math.round((100 * part) / whole) : 0);
  const countDecided = (rows) => rows.reduce((count, row) => count + (finalVerdict(row) !== null), 0);
  const hue = (cluster) => (cluster ? (data.order.get(cluster) * 137.508 + 205) % 360 : 0);
  const colour = (cluster) => (!cluster || cluster.number < 0 ? "#9aa1aa" : `hsl(${hue(cluster)} 62% 52%)`);

  function show(image, kind, row, small = false) {
    image.onload = () => image.classList.toggle("pixels", image.naturalWidth <= 128);
    image.src = backend.picture(kind, row, small);
    image.alt = `${kind} picture of sample ${data.idx[row]}`;
  }

  function thumbnail(row, extra = {}) {
    const image = make("img", { loading: "lazy", decoding: "async" });
    show(image, "masked", row, true);
    const verdict = finalVerdict(row) ?? "";
    const title = `sample ${data.idx[row]}`;
    return make("button", { class: `thumb ${verdict}`, "data-row": row, title, onclick: () => go(row), ...extra }, image);
  }

  // What is on the page

  function drawClasses() {
    const totals = data.classes.map(() => [0, 0]);
    data.label.forEach((label, row) => {
      const total = (totals[label] ??= [0, 0]);
      total[0] += finalVerdict(row) !== null;
      total[1] += 1;
    });
    at.classes.replaceChildren(
      ...totals.map(([done, total], label) =>
        make(
          "button",
          {
            class: "class",
            disabled: total === 0 ? "" : null,
            "aria-pressed": String(filter === label),
            title: total ? "Show the clusters of this class only" : "The scan found no image of this class",
            onclick: () => setFilter(filter === label ? null : label),
          },
          make("span", {}, className(label)),
          make("span", { class: "count" }, total ? `${done} / ${total}` : "no candidates"),
          make("progress", { max: total || 1, value: done, "aria-label": `${className(label)}: share decided` }),
        ),
      ),
    );
  }

  function drawClusters() {
    at.clusters.replaceChildren(
      ...visible().map((cluster) => {
        const image = make("img", { loading: "lazy", decoding: "async", alt: "" });
        show(image, "masked", cluster.typical[0], true);
        const suspicion = cluster.suspicion === null ? "" : `suspicion ${number(cluster.suspicion)} · `;
        return make(
          "button",
          { class: "cluster", "data-cluster": data.order.get(cluster), onclick: () => go(firstOpen(cluster) ?? cluster.rows[0]) },
          image,
          make(
            "span",
            {},
            make("strong", {}, make("i", { style: `background:${colour(cluster)}` }), className(cluster.label)),
            make("small", {}, `${clusterName(cluster)} · ${cluster.size} image${cluster.size === 1 ? "" : "s"}`),
            make("small", {}, suspicion, make("b", { class: "share" })),
            make("progress", { max: cluster.rows.length }),
          ),
        );
      }),
    );
  }

  function updateClusters() {
    for (const node of at.clusters.children) {
      const cluster = clusters[node.dataset.cluster];
      const done = countDecided(cluster.rows);
      node.querySelector("progress").value = done;
      node.querySelector(".share").textContent =
        done === cluster.rows.length ? "decided" : `${percent(done, cluster.rows.length)} % decided`;
      const here = cluster === clusterOf.get(current);
      if (here && node.getAttribute("aria-current") !== "true") reveal(node);
      node.setAttribute("aria-current", String(here));
    }
  }

  function reveal(node) { // scrolls the list alone, never the page
    const top = node.offsetTop - at.clusters.offsetTop;
    if (top < at.clusters.scrollTop) at.clusters.scrollTop = top;
    const bottom = top + node.offsetHeight - at.clusters.clientHeight;
    if (bottom > at.clusters.scrollTop) at.clusters.scrollTop = bottom;
  }

  function drawFacts() {
    const cluster = clusterOf.get(current);
    const label = data.label[current];
    const [verdict, by] = decisions.get(current) ?? [];
    const says = !verdict ? "undecided" : FINAL.includes(by) ? verdict : `${verdict}, says the ${by}`;
    const margin = data.margin[current];
    const keeps = margin === null ? "unknown" : margin > 0 ? `still ${className(label)}` : `no longer ${className(label)}`;
    const fact = (name, value, title = null) =>
      make("span", { class: "fact", title }, make("small", {}, name), make("span", {}, value));
    const evidence = Object.entries(cluster.evidence).map(([name, value]) => {
      const shown = typeof value === "number" ? number(value) : String(value ?? "–");
      const meter = typeof value === "number" ? [make("meter", { min: 0, max: 1, value: Math.min(1, Math.max(0, value)) })] : [];
      return make("span", { class: "fact evidence" }, make("small", {}, name.replaceAll("_", " ")), make("span", {}, shown, ...meter));
    });
    at.facts.replaceChildren(
      make("strong", { class: "name" }, className(label)),
      make("span", { class: `verdict ${verdict && FINAL.includes(by) ? verdict : verdict ? "suggested" : ""}` }, says),
      fact(clusterName(cluster), `${cluster.rows.indexOf(current) + 1} of ${cluster.rows.length}`),
      fact("logit", number(data.logit[current])),
      fact("masked image alone", keeps, `margin over the strongest other class: ${number(margin)}`),
      ...evidence,
    );
    at.ask.textContent =
      `Is what the masked image shows a reason to call this “${className(label)}”? If not, it is spurious.`;
  }

  function drawStrip() {
    const cluster = clusterOf.get(current);
    at.stripTitle.textContent = cluster.number < 0
      ? `${className(cluster.label)}: candidates in no cluster`
      : `${className(cluster.label)}, ${clusterName(cluster)}: typical ones first`;
    const columns = getComputedStyle(at.strip).gridTemplateColumns.split(" ").length;
    const shown = whole ? cluster.typical : cluster.typical.slice(0, 2 * columns); // two full rows
    at.strip.replaceChildren(...shown.map((row) => thumbnail(row)));
    root.querySelector("[data-do=more]").hidden = shown.length === cluster.typical.length;
    at.limit.textContent = cluster.size > cluster.rows.length
      ? `This file holds the first ${cluster.rows.length} of ${cluster.size}.`
      : "";
    const neurons = cluster.neurons.filter((neuron) => neuron.rows.length);
    at.neuronSection.hidden = !neurons.length;
    at.neurons.replaceChildren(
      ...neurons.map((neuron) =>
        make(
          "div",
          { class: "neuron" },
          make("p", {}, `neuron ${neuron.neuron}`, make("small", {}, ` ${percent(neuron.share, 1)} % of the relevance`)),
          make("div", { class: "strip" }, ...neuron.rows.slice(0, 8).map((row) => thumbnail(row))),
        ),
      ),
    );
  }

  function updateThumbnails() {
    for (const node of root.querySelectorAll(".thumb")) {
      const row = Number(node.dataset.row);
      node.className = `thumb ${finalVerdict(row) ?? ""}`;
      node.setAttribute("aria-current", String(row === current));
    }
  }

  function drawMap(canvas, points) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return [];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const [left, right] = points.reduce(([a, b], p) => [Math.min(a, p.x), Math.max(b, p.x)], [Infinity, -Infinity]);
    const [low, high] = points.reduce(([a, b], p) => [Math.min(a, p.y), Math.max(b, p.y)], [Infinity, -Infinity]);
    const radius = points.length > 2000 ? 2 : points.length > 400 ? 3 : 4.5;
    const placed = points.map((p) => ({
      ...p,
      px: 14 + ((p.x - left) / (right - left || 1)) * (width - 28),
      py: height - 14 - ((p.y - low) / (high - low || 1)) * (height - 28),
    }));
    const dot = (p, size) => (context.beginPath(), context.arc(p.px, p.py, size, 0, 7));
    for (const p of placed) {
      dot(p, radius);
      context.fillStyle = context.strokeStyle = p.colour;
      context.globalAlpha = 0.8;
      context.lineWidth = 1.5;
      if (p.ring) context.stroke();
      else context.fill();
    }
    context.globalAlpha = 1;
    for (const p of placed.filter((p) => p.marked)) {
      dot(p, radius + 4);
      context.lineWidth = 2;
      context.strokeStyle = getComputedStyle(root).color;
      context.stroke();
    }
    return placed;
  }

  function drawMaps() {
    const samples = [];
    for (const cluster of clusters) {
      for (const row of cluster.rows) {
        if (data.x[row] === null || data.y[row] === null) continue;
        samples.push({
          x: data.x[row], y: data.y[row], row, colour: colour(cluster), ring: finalVerdict(row), marked: row === current,
        });
      }
    }
    at.sampleMap.hidden = !samples.length;
    at.samples.points = samples.length ? drawMap(at.samples, samples) : [];
    const neurons = data.neurons;
    at.neuronMap.hidden = !neurons;
    if (neurons) {
      const here = new Set(clusterOf.get(current).neurons.map((neuron) => neuron.neuron));
      const points = neurons.neuron.map((neuron, i) => {
        const cluster = clusters.find((one) => one.number >= 0 && one.number === neurons.cluster[i]);
        return { x: neurons.x[i], y: neurons.y[i], cluster, colour: colour(cluster), marked: here.has(neuron), neuron };
      });
      at.neuronPoints.points = drawMap(at.neuronPoints, points);
    }
    at.maps.hidden = !samples.length && !neurons;
  }

  function nearest(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let best = null, least = 14 ** 2;
    for (const p of canvas.points ?? []) {
      const away = (p.px - x) ** 2 + (p.py - y) ** 2;
      if (away < least) [best, least] = [p, away];
    }
    return best;
  }

  function update() {
    drawFacts();
    drawClasses();
    updateClusters();
    updateThumbnails();
    requestAnimationFrame(drawMaps);
  }

  // Moving about

  function go(row) {
    const before = clusterOf.get(current);
    current = row;
    if (clusterOf.get(row) !== before) whole = false;
    for (const kind of ["original", "heatmap", "masked"]) show(at[kind], kind, row);
    at.note.value = decisions.get(row)?.[2] ?? "";
    if (clusterOf.get(row) !== before) drawStrip();
    update();
    const next = nextOpen(row);
    if (next !== null) for (const kind of ["original", "heatmap", "masked"]) new Image().src = backend.picture(kind, next);
  }

  const firstOpen = (cluster) => cluster.rows.find((row) => finalVerdict(row) === null) ?? null;

  function nextOpen(row) {
    const cluster = clusterOf.get(row);
    const position = cluster.rows.indexOf(row);
    const rest = [...cluster.rows.slice(position + 1), ...cluster.rows.slice(0, position)];
    const here = rest.find((other) => finalVerdict(other) === null);
    if (here !== undefined) return here;
    const list = visible(), start = list.indexOf(cluster);
    for (let i = 1; i < list.length; i++) {
      const found = firstOpen(list[(start + i) % list.length]);
      if (found !== null) return found;
    }
    return null;
  }

  function step(by) {
    const rows = visible().flatMap((cluster) => cluster.rows);
    const position = rows.indexOf(current);
    go(rows[(position + by + rows.length) % rows.length]);
  }

  function setFilter(label) {
    filter = label;
    drawClusters();
    const list = visible();
    if (!list.includes(clusterOf.get(current))) go(firstOpen(list[0]) ?? list[0].rows[0]);
    else update();
  }

  // Deciding: the page goes on at once, the backend saves one after the other, and what it could not save comes back

  function take(reply) {
    if (reply.error) {
      say(reply.error, true);
      return false;
    }
    for (const [row, decision] of Object.entries(reply.changed)) {
      if (decision) decisions.set(Number(row), decision);
      else decisions.delete(Number(row));
    }
    root.querySelector("[data-do=undo]").disabled = !reply.can_undo;
    return true;
  }

  function say(text, bad = false) {
    at.status.textContent = text;
    at.status.classList.toggle("bad", bad);
  }

  function enqueue(action) {
    queue = queue.then(action).catch(() => say(SILENT, true));
  }

  function decide(verdict, all = false) {
    const from = current, cluster = clusterOf.get(current), note = at.note.value.trim();
    const rows = all ? cluster.rows : [from];
    const before = rows.map((row) => decisions.get(row));
    const made = [verdict, "person", note];
    for (const row of rows) decisions.set(row, made);
    history.push(from);
    const next = nextOpen(from);
    say("Saving …");
    if (next !== null) go(next);
    else update();
    enqueue(async () => {
      const reply = await backend.decide({ rows, verdict, note }).catch(() => ({ error: SILENT }));
      if (take(reply)) {
        const what = all ? `${rows.length} of ${clusterName(cluster)}` : `Sample ${data.idx[from]}`;
        say(next === null ? words.done : `${what}: ${verdict}. ${words.saved}`);
        return;
      }
      rows.forEach((row, i) => { // back to before, but for what was decided anew meanwhile
        if (decisions.get(row) !== made) return;
        if (before[i]) decisions.set(row, before[i]);
        else decisions.delete(row);
      });
      history = history.filter((row) => row !== from);
      go(from);
      at.note.value = note;
    });
  }

  function undo() {
    const back = history.pop();
    if (back !== undefined) go(back);
    enqueue(async () => {
      const reply = await backend.undo();
      if (!take(reply)) return;
      const changed = Object.keys(reply.changed);
      say(changed.length ? "Taken back." : "There is nothing of yours to take back.");
      if (back === undefined && changed.length) go(Number(changed[0]));
      else if (back === current) go(back);
      else update();
    });
  }

  const actions = {
    spurious: () => decide("spurious"),
    core: () => decide("core"),
    unsure: () => decide("unsure"),
    clusterSpurious: () => decide("spurious", true),
    clusterCore: () => decide("core", true),
    undo,
    previous: () => step(-1),
    next: () => step(1),
    more: () => { whole = true; drawStrip(); updateThumbnails(); },
    note: () => at.note.focus(),
  };
  const keys = { s: "spurious", c: "core", u: "unsure", z: "undo", n: "note", arrowleft: "previous", arrowright: "next" };
  const shifted = { s: "clusterSpurious", c: "clusterCore" };

  function onKey(event) {
    if (!root.isConnected || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) {
      if (event.key === "Enter" || event.key === "Escape") event.target.blur();
      return;
    }
    // By shiftKey, not by the letter's case: with Caps Lock on, s must not judge a whole cluster.
    const action = (event.shiftKey ? shifted : keys)[event.key.toLowerCase()];
    if (!action || event.repeat && !action.match(/previous|next/)) return;
    event.preventDefault();
    actions[action]();
  }

  async function begin() {
    const [table, opened] = await Promise.all([backend.load(), backend.open()]);
    data = table;
    clusters = data.clusters;
    data.order = new Map(clusters.map((cluster, i) => [cluster, i]));
    clusterOf = new Map(clusters.flatMap((cluster) => cluster.rows.map((row) => [row, cluster])));
    at.run.textContent = data.run;
    take(opened);
    if (opened.error) return;
    const start = clusters.map(firstOpen).find((row) => row !== null) ?? clusters[0].rows[0];
    for (const button of root.querySelectorAll("[data-do]")) button.addEventListener("click", () => {
      button.blur(); // or a later space bar would press it again
      actions[button.dataset.do]();
    });
    for (const canvas of [at.samples, at.neuronPoints]) {
      canvas.addEventListener("click", (event) => {
        const p = nearest(canvas, event);
        if (p?.row !== undefined) go(p.row);
        else if (p?.cluster) go(p.cluster.rows[0]);
      });
      canvas.addEventListener("mousemove", (event) => {
        const p = nearest(canvas, event);
        canvas.style.cursor = p ? "pointer" : "default";
        canvas.title = p?.neuron !== undefined ? `neuron ${p.neuron}` : "";
        at.peek.hidden = p?.row === undefined;
        if (at.peek.hidden) return;
        show(at.peek, "masked", p.row, true);
        at.peek.style.left = `${Math.min(event.clientX + 16, window.innerWidth - 130)}px`;
        at.peek.style.top = `${Math.min(event.clientY + 16, window.innerHeight - 130)}px`;
      });
      canvas.addEventListener("mouseleave", () => (at.peek.hidden = true));
    }
    document.addEventListener("keydown", onKey);
    window.addEventListener("resize", () => requestAnimationFrame(drawMaps));
    window.addEventListener("focus", () => enqueue(async () => { // what another tab has decided meanwhile
      if (take(await backend.refresh())) update();
    }));
    // The pictures first: everything else may come a moment later.
    current = start;
    for (const kind of ["original", "heatmap", "masked"]) show(at[kind], kind, start);
    current = undefined;
    setTimeout(() => { drawClusters(); go(start); root.dataset.ready = "yes"; });
  }
  begin().catch((error) => say(`The candidates cannot be read (${error}): reload the page.`, true));
}
