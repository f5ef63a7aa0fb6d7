// The review page. It shows what `backend` gives it and writes only through `backend`: a server, or a file.
// Names from data become text, never markup.

function startReview(root, backend) {
  const at = {};
  for (const node of root.querySelectorAll("[data-at]")) at[node.dataset.at] = node;
  const FINAL = ["person", "file"]; // what others wrote is a suggestion
  const KINDS = ["original", "heatmap", "masked"];
  const PER_PAGE = 60, MOST_CLASSES = 24;
  const SILENT = "Not saved: the server does not answer. Start hf-score review again and reload this page.";
  const words = backend.words ?? { saved: "Saved.", done: "All decided, and saved in selection.json." };
  let data, clusters, clusterOf, current, whole = false, filter = null, search = "", listed = 0, history = [];
  let queue = Promise.resolve(), waiting = 0, visible = [];
  const decisions = new Map(); // row to [verdict, decided by, note, shortcut]
  const doneOf = new Map(); // cluster to how many a person has decided
  let drafts = { notes: {}, shortcuts: {} }; // what was typed and is not part of a decision yet: by row, by cluster

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  const isFinal = (decision) => decision !== undefined && FINAL.includes(decision[1]);
  const finalVerdict = (row) => (isFinal(decisions.get(row)) ? decisions.get(row)[0] : null);
  const className = (label) => data.classes[label] ?? `class ${label}`;
  const clusterName = (cluster) => (cluster.number < 0 ? "no cluster" : `cluster ${cluster.number}`);
  const candidateName = (row) => `candidate ${data.idx[row]}`;
  const capital = (text) => text[0].toUpperCase() + text.slice(1);
  const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const percent = (part, whole) => (whole ? Math.round((100 * part) / whole) : 0);
  const done = (cluster) => doneOf.get(cluster) ?? 0;
  const hue = (cluster) => (cluster ? (data.order.get(cluster) * 137.508 + 205) % 360 : 0);
  const colour = (cluster) => (!cluster || cluster.number < 0 ? "#9aa1aa" : `hsl(${hue(cluster)} 62% 52%)`);

  function setDecision(row, decision) {
    const cluster = clusterOf[row];
    const change = Number(isFinal(decision)) - Number(isFinal(decisions.get(row)));
    if (decision) decisions.set(row, decision);
    else decisions.delete(row);
    if (!change) return;
    doneOf.set(cluster, done(cluster) + change);
    const total = data.totals.get(data.label[row]);
    total.done += change;
  }

  function keepDrafts() {
    try { localStorage.setItem(data.draftsKey, JSON.stringify(drafts)); } catch { /* a browser that keeps nothing */ }
  }

  function show(image, kind, row, small = false) {
    image.onload = () => image.classList.toggle("pixels", image.naturalWidth <= 128);
    image.src = backend.picture(kind, row, small);
    image.alt = { original: "", heatmap: "Relevance in ", masked: "Masked image of " }[kind] + candidateName(row);
    if (kind === "original") image.alt = capital(image.alt);
  }

  function thumbnail(row) {
    const image = make("img", { loading: "lazy", decoding: "async" });
    show(image, "masked", row, true);
    image.alt = "";
    return make("button", { class: "thumb", "data-row": row, title: candidateName(row), onclick: () => go(row) }, image);
  }

  // What is on the page

  function drawClasses() {
    const labels = [...data.totals.keys()];
    const shown = labels.length <= MOST_CLASSES ? labels : labels.filter((label) => label === (filter ?? data.label[current]));
    at.classes.replaceChildren(
      ...shown.map((label) => {
        const { done, total } = data.totals.get(label);
        return make(
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
          make("progress", { max: total || 1, value: done, "aria-hidden": "true" }),
        );
      }),
    );
    if (shown.length < labels.length) {
      at.classes.append(make("small", {}, `${decidedInAll()} / ${data.idx.length} decided in ${labels.length} classes`));
    }
  }

  const decidedInAll = () => [...doneOf.values()].reduce((sum, count) => sum + count, 0);

  function findVisible() {
    const asked = search.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (cluster) => {
      if (filter !== null && cluster.label !== filter) return false;
      if (!asked.length) return true;
      const text = `${className(cluster.label)} ${clusterName(cluster)} ${shortcutOf(cluster)}`.toLowerCase();
      return asked.every((word) => text.includes(word) || cluster.rows.some((row) => String(data.idx[row]) === word));
    };
    visible = clusters.filter(fits);
    at.found.textContent = visible.length
      ? `${visible.length} cluster${visible.length === 1 ? "" : "s"}, most suspicious first`
      : "There is no such cluster.";
  }

  function drawClusters() {
    const last = Math.max(0, Math.ceil(visible.length / PER_PAGE) - 1);
    listed = Math.min(listed, last);
    at.pages.hidden = last === 0;
    at.pages.querySelector("[data-do=earlier]").disabled = listed === 0;
    at.pages.querySelector("[data-do=later]").disabled = listed === last;
    at.clusters.replaceChildren(
      ...visible.slice(listed * PER_PAGE, (listed + 1) * PER_PAGE).map((cluster) => {
        const image = make("img", { loading: "lazy", decoding: "async" });
        show(image, "masked", cluster.typical[0], true);
        image.alt = "";
        const dot = make("i");
        dot.style.background = colour(cluster);
        const suspicion = cluster.suspicion === null ? "" : `suspicion ${number(cluster.suspicion)} · `;
        return make(
          "button",
          { class: "cluster", "data-cluster": data.order.get(cluster), onclick: () => goTo(cluster) },
          image,
          make(
            "span",
            {},
            make("strong", {}, dot, className(cluster.label)),
            make("small", {}, `${clusterName(cluster)} · ${cluster.size} candidate${cluster.size === 1 ? "" : "s"}`),
            make("small", {}, suspicion, make("b", { class: "share" })),
            make("small", { class: "named" }),
            make("progress", { max: cluster.rows.length, "aria-hidden": "true" }),
          ),
        );
      }),
    );
  }

  function updateClusters() {
    for (const node of at.clusters.children) {
      const cluster = clusters[node.dataset.cluster];
      const name = shortcutOf(cluster);
      node.querySelector("progress").value = done(cluster);
      node.querySelector(".share").textContent =
        done(cluster) === cluster.rows.length ? "decided" : `${percent(done(cluster), cluster.rows.length)} % decided`;
      node.querySelector(".named").textContent = name && `“${name}”`;
      const here = cluster === clusterOf[current];
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

  function fact(term, value, meter = null, name = data.terms[term]?.[0] ?? term.replaceAll("_", " ")) {
    const shown = make("span", { class: "value" }, value);
    if (meter !== null) shown.append(make("meter", { min: 0, max: 1, value: Math.min(1, Math.max(0, meter)), "aria-hidden": "true" }));
    const text = data.terms[term]?.[1];
    if (!text) return make("span", { class: "fact" }, make("small", {}, name), shown);
    const id = `hfs-tip-${term}`;
    const word = make("button", { class: "term", "data-term": term, "aria-describedby": id, onclick: () => help(term) }, name);
    return make("span", { class: "fact" }, word, make("span", { class: "tip", id, role: "tooltip" }, text), shown);
  }

  function drawFacts() {
    const focused = document.activeElement?.dataset?.term;
    const cluster = clusterOf[current];
    const label = data.label[current];
    const [verdict, by] = decisions.get(current) ?? [];
    const says = !verdict ? "undecided" : FINAL.includes(by) ? verdict : `${verdict}, says the ${by}`;
    const margin = data.margin[current];
    const keeps = margin === null ? "unknown" : `${margin > 0 ? "still" : "no longer"} ${className(label)} (${margin > 0 ? "+" : ""}${number(margin)})`;
    const [file, width, height] = data.originals[current] ?? [];
    const original = width ? [fact("original", `${width} × ${height}`, null, file || "original")] : [];
    at.facts.replaceChildren(
      make("strong", { class: "name" }, className(label)),
      make("span", { class: `verdict ${verdict && FINAL.includes(by) ? verdict : verdict ? "suggested" : ""}` }, says),
      fact("candidate", String(data.idx[current])),
      fact("margin", keeps),
      fact("logit", number(data.logit[current])),
      ...original,
    );
    const shares = ["suspicion", "position", "masked_alone"];
    const evidence = Object.entries(cluster.evidence).map(([name, value]) =>
      typeof value === "number" ? fact(name, number(value), shares.includes(name) ? value : null) : fact(name, String(value ?? "–")));
    at.clusterFacts.replaceChildren(
      fact("cluster", `${cluster.number < 0 ? "none" : cluster.number}: ${cluster.rows.indexOf(current) + 1} of ${cluster.rows.length}`),
      ...(cluster.suspicion === null ? [] : [fact("suspicion", number(cluster.suspicion), cluster.suspicion)]),
      ...evidence,
    );
    at.ask.textContent =
      `Is what the masked image shows a reason to call this “${className(label)}”? If not, it is spurious.`;
    if (focused) root.querySelector(`[data-term="${focused}"]`)?.focus();
  }

  function drawStrip() {
    const cluster = clusterOf[current];
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
          make("p", {}, `neuron ${neuron.neuron}: ${percent(neuron.share, 1)} % of the relevance`),
          make("div", { class: "strip" }, ...neuron.rows.slice(0, 8).map((row) => thumbnail(row))),
        ),
      ),
    );
  }

  function updateThumbnails() {
    for (const node of root.querySelectorAll(".thumb")) {
      const row = Number(node.dataset.row);
      const verdict = finalVerdict(row);
      node.className = `thumb ${verdict ?? ""}`;
      node.setAttribute("aria-label", `${capital(candidateName(row))}, ${verdict ?? "undecided"}`);
      node.setAttribute("aria-current", String(row === current));
    }
  }

  function drawGoOn() {
    const kept = [...decisions.values()].filter((decision) => isFinal(decision) && decision[0] === "spurious").length;
    const all = decidedInAll() === data.idx.length;
    at.goOn.hidden = !data.command || !(kept || all);
    const counted = `${kept} candidate${kept === 1 ? " is" : "s are"} spurious`;
    at.goOnText.textContent = !kept ? "All decided, and none is spurious: there is nothing to train out."
      : all ? `All decided, ${counted}. Next:` : `${capital(counted)} so far. When it is enough, next:`;
    at.command.textContent = kept ? data.command : "";
    root.querySelector("[data-do=copy]").hidden = !kept;
  }

  function drawShortcut() {
    const cluster = clusterOf[current];
    if (document.activeElement !== at.shortcut) at.shortcut.value = shortcutOf(cluster);
    at.shortcut.disabled = cluster.number < 0;
  }

  // Names of shortcuts and notes: typed at any time, part of a decision as soon as there is one

  function shortcutOf(cluster) {
    const draft = drafts.shortcuts[cluster.number];
    if (draft !== undefined) return draft;
    if (!done(cluster)) return "";
    for (const row of cluster.rows) if (decisions.get(row)?.[3]) return decisions.get(row)[3];
    return "";
  }

  function nameShortcut() {
    const cluster = clusterOf[current], shortcut = at.shortcut.value.trim();
    if (cluster.number < 0 || shortcut === shortcutOf(cluster)) return;
    drafts.shortcuts[cluster.number] = shortcut;
    keepDrafts();
    updateClusters();
    drawNames();
    if (!hasSpurious(cluster)) return say("Kept here; it is saved with the first spurious candidate of this cluster.");
    enqueue(async () => {
      if (take(await backend.amend({ rows: cluster.rows, shortcut }))) {
        settleShortcut(cluster, shortcut);
        say(`The shortcut of ${clusterName(cluster)} is “${shortcut}”. ${words.saved}`);
      }
      update();
    });
  }

  const hasSpurious = (cluster) => done(cluster) > 0 && cluster.rows.some((row) => finalVerdict(row) === "spurious");

  function settleShortcut(cluster, shortcut) { // decisions hold it now, and the latest word of any tab counts
    if (drafts.shortcuts[cluster.number] !== shortcut || !hasSpurious(cluster)) return;
    delete drafts.shortcuts[cluster.number];
    keepDrafts();
  }

  function drawNames() {
    const known = new Set(Object.values(drafts.shortcuts));
    for (const decision of decisions.values()) if (decision[3]) known.add(decision[3]);
    at.shortcuts.replaceChildren(...[...known].filter(Boolean).sort().map((name) => make("option", { value: name })));
  }

  function typeNote() {
    drafts.notes[current] = at.note.value;
    keepDrafts();
  }

  function saveNote() { // of what is decided; a note about what is not waits for the decision
    const row = current, note = drafts.notes[row]?.trim();
    if (note === undefined || finalVerdict(row) === null) return;
    enqueue(async () => {
      if (!take(await backend.amend({ rows: [row], note }))) return;
      forgetNote(row, note);
      say(`Note about ${candidateName(row)}. ${words.saved}`);
    });
  }

  function forgetNote(row, note) {
    if (drafts.notes[row]?.trim() !== note) return; // it has been typed on
    delete drafts.notes[row];
    keepDrafts();
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
    at.sampleMap.hidden = !data.hasMap;
    at.neuronMap.hidden = !data.neurons;
    at.maps.hidden = !data.hasMap && !data.neurons;
    if (at.maps.hidden) return;
    const samples = [];
    for (const cluster of data.hasMap ? clusters : []) {
      for (const row of cluster.rows) {
        if (data.x[row] === null || data.y[row] === null) continue;
        samples.push({
          x: data.x[row], y: data.y[row], row, colour: colour(cluster), ring: finalVerdict(row), marked: row === current,
        });
      }
    }
    at.samples.points = samples.length ? drawMap(at.samples, samples) : [];
    const neurons = data.neurons;
    if (neurons) {
      const here = new Set(clusterOf[current].neurons.map((neuron) => neuron.neuron));
      const points = neurons.neuron.map((neuron, i) => {
        const cluster = clusters.find((one) => one.number >= 0 && one.number === neurons.cluster[i]);
        return { x: neurons.x[i], y: neurons.y[i], cluster, colour: colour(cluster), marked: here.has(neuron), neuron };
      });
      at.neuronPoints.points = drawMap(at.neuronPoints, points);
    }
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
    drawGoOn();
    drawShortcut();
    requestAnimationFrame(drawMaps);
  }

  // Moving about

  function go(row) {
    const before = clusterOf[current], cluster = clusterOf[row];
    if (current !== undefined && row !== current) { // what is being typed belongs to what was shown
      if (document.activeElement === at.note) saveNote();
      if (document.activeElement === at.shortcut) nameShortcut(), at.shortcut.blur();
    }
    current = row;
    for (const kind of KINDS) show(at[kind], kind, row);
    at.note.value = drafts.notes[row] ?? decisions.get(row)?.[2] ?? "";
    if (cluster !== before) {
      whole = false;
      drawStrip();
      list(cluster);
    }
    update();
    const next = nextOpen(row);
    if (next !== null) for (const kind of KINDS) new Image().src = backend.picture(kind, next);
  }

  const firstOpen = (cluster) => cluster.rows.find((row) => finalVerdict(row) === null) ?? null;
  const goTo = (cluster) => go(firstOpen(cluster) ?? cluster.rows[0]);

  function list(cluster) { // the page of the list that holds it
    const place = visible.indexOf(cluster), page = Math.floor(place / PER_PAGE);
    if (place < 0 || page === listed && at.clusters.children.length) return;
    listed = page;
    drawClusters();
  }

  function turn(by) {
    listed += by;
    drawClusters();
    updateClusters();
    at.clusters.scrollTop = 0;
  }

  function nextOpen(row) {
    const cluster = clusterOf[row];
    const position = cluster.rows.indexOf(row);
    const rest = [...cluster.rows.slice(position + 1), ...cluster.rows.slice(0, position)];
    const here = rest.find((other) => finalVerdict(other) === null);
    if (here !== undefined) return here;
    const start = visible.indexOf(cluster);
    for (let i = 1; i <= visible.length; i++) {
      const other = visible[(start + i) % visible.length];
      if (other !== cluster && done(other) < other.rows.length) return firstOpen(other);
    }
    return null;
  }

  function step(by) {
    const { rows } = clusterOf[current];
    const place = rows.indexOf(current) + by;
    if (place >= 0 && place < rows.length) return go(rows[place]);
    const other = neighbour(by);
    if (other) go(by > 0 ? other.rows[0] : other.rows.at(-1));
  }

  function neighbour(by) {
    const place = visible.indexOf(clusterOf[current]);
    return visible[place < 0 ? 0 : (place + by + visible.length) % visible.length];
  }

  function stepCluster(by) {
    const other = neighbour(by);
    if (other) goTo(other);
  }

  function narrow() { // to the class and the words that are asked for
    findVisible();
    listed = 0;
    drawClusters();
    if (visible.length && !visible.includes(clusterOf[current])) goTo(visible[0]);
    else update();
  }

  function setFilter(label) {
    filter = label;
    narrow();
  }

  // Deciding: the page goes on at once, the backend saves one after the other, and what it could not save comes back

  function take(reply) {
    if (reply.error) {
      say(reply.error, true);
      return false;
    }
    for (const [row, decision] of Object.entries(reply.changed)) setDecision(Number(row), decision ?? undefined);
    root.querySelector("[data-do=undo]").disabled = !reply.can_undo;
    return true;
  }

  function say(text, bad = false) {
    at.status.textContent = text;
    at.status.classList.toggle("bad", bad);
  }

  function enqueue(action) {
    waiting += 1;
    queue = queue.then(action).catch(() => say(SILENT, true)).finally(() => (waiting -= 1));
  }

  function decide(verdict, all = false) {
    const from = current, cluster = clusterOf[current];
    const rows = all ? cluster.rows.filter((row) => finalVerdict(row) === null) : [from];
    if (!rows.length) return say(`All of ${clusterName(cluster)} are decided: a later verdict on one replaces its own.`);
    const shortcut = verdict === "spurious" ? shortcutOf(cluster) : "";
    const notes = Object.fromEntries(rows.filter((row) => row in drafts.notes).map((row) => [row, drafts.notes[row].trim()]));
    const before = rows.map((row) => decisions.get(row));
    const made = new Map(rows.map((row, i) => [row, [verdict, "person", notes[row] ?? before[i]?.[2] ?? "", shortcut]]));
    for (const [row, decision] of made) setDecision(row, decision);
    history.push(from);
    const next = nextOpen(from);
    say("Saving …");
    if (next !== null) go(next);
    else update();
    enqueue(async () => {
      const reply = await backend.decide({ rows, verdict, notes, shortcut, undecided_only: all })
        .catch(() => ({ error: SILENT }));
      if (take(reply)) {
        for (const row of Object.keys(notes)) forgetNote(row, notes[row]);
        if (shortcut) settleShortcut(cluster, shortcut);
        const what = all ? `${rows.length} of ${clusterName(cluster)}` : capital(candidateName(from));
        say(next === null ? words.done : `${what}: ${verdict}. ${words.saved}`);
        return;
      }
      rows.forEach((row, i) => { // back to before, but for what was decided anew meanwhile
        if (decisions.get(row) === made.get(row)) setDecision(row, before[i]);
      });
      history = history.filter((row) => row !== from);
      go(from);
    });
  }

  function undo() {
    const back = history.pop();
    if (back !== undefined) go(back);
    enqueue(async () => {
      const noted = new Map([...decisions].map(([row, decision]) => [row, decision[2]]));
      const reply = await backend.undo();
      if (!take(reply)) return;
      const changed = Object.keys(reply.changed).map(Number);
      for (const row of changed) { // a note outlives the decision that it was written with
        if (noted.get(row) && !decisions.has(row)) drafts.notes[row] ??= noted.get(row);
      }
      keepDrafts();
      say(changed.length ? "Taken back." : "There is nothing of yours to take back.");
      if (back === undefined && changed.length) go(changed[0]);
      else if (back === current) go(back);
      else update();
    });
  }

  // Help, and the original

  function help(term = null) {
    if (!at.help.open) at.help.showModal();
    at.help.scrollTop = 0;
    const entry = term && at.terms.querySelector(`[data-entry="${term}"]`);
    for (const node of at.terms.children) node.classList.toggle("asked", node.dataset.entry === term);
    if (entry) entry.scrollIntoView({ block: "center" });
  }

  async function zoom() {
    const row = current, [file, width, height] = data.originals[row] ?? [];
    at.zoomTitle.textContent = [capital(candidateName(row)), file, width && `${width} × ${height} pixels`].filter(Boolean).join(" · ");
    at.frame.classList.remove("actual");
    at.zoomed.hidden = false;
    at.zoomed.alt = capital(`original of ${candidateName(row)}`);
    at.zoomed.src = backend.picture("original", row);
    at.zoom.showModal();
    if (!backend.original || !data.has_originals) {
      at.zoomStatus.textContent = backend.original ? "This is what the model sees: the folder does not say where the data set is."
        : "This is what the model sees: this file holds no larger picture.";
      return;
    }
    at.zoomStatus.textContent = "Opening the data set …";
    const reply = await backend.original(row).catch(() => ({ error: SILENT }));
    if (row !== current || !at.zoom.open) return;
    at.zoomStatus.textContent = reply.error ?? "";
    if (reply.url) at.zoomed.src = reply.url;
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(data.command);
      say("Copied: paste it into the terminal.");
    } catch { // not allowed: select it, to be copied by hand
      getSelection().selectAllChildren(at.command);
      say("Press Ctrl+C to copy the selected command.");
    }
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
    nextCluster: () => stepCluster(1),
    previousCluster: () => stepCluster(-1),
    earlier: () => turn(-1),
    later: () => turn(1),
    more: () => { whole = true; drawStrip(); updateThumbnails(); },
    note: () => at.note.focus(),
    name: () => at.shortcut.focus(),
    search: () => at.search.focus(),
    help: () => help(),
    zoom,
    scale: () => at.frame.classList.toggle("actual"),
    close: () => { at.help.close(); at.zoom.close(); },
    copy,
  };
  const keys = {
    s: "spurious", c: "core", u: "unsure", z: "undo", n: "note", m: "name", o: "zoom", "/": "search", "?": "help",
    j: "nextCluster", k: "previousCluster", arrowleft: "previous", arrowright: "next",
  };
  const shifted = { s: "clusterSpurious", c: "clusterCore" };
  const inWords = [
    ["s c u", "spurious, core, unsure; goes to the next undecided candidate"],
    ["Shift+S Shift+C", "spurious or core for the undecided ones of the cluster"],
    ["z", "takes back your last action, whole clusters too"],
    ["← →", "previous and next candidate"],
    ["j k", "next and previous cluster"],
    ["n", "note about this candidate; Enter to return"],
    ["m", "name of the cluster’s shortcut; Enter to return"],
    ["o", "the original, as large as it is"],
    ["/", "search the clusters"],
    ["?", "this page"],
  ];

  function onKey(event) {
    if (!root.isConnected || event.ctrlKey || event.metaKey || event.altKey) return;
    if (at.help.open || at.zoom.open) {
      if (at.zoom.open && event.key === "Enter" && event.target.tagName !== "BUTTON") actions.scale();
      return;
    }
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) {
      if (event.key === "Enter" || event.key === "Escape") event.target.blur();
      return;
    }
    // By shiftKey, not by the letter's case: with Caps Lock on, s must not judge a whole cluster.
    const letter = /^[a-z]$/i.test(event.key);
    const action = (event.shiftKey && letter ? shifted : keys)[event.key.toLowerCase()];
    if (!action || event.repeat && !action.match(/previous|next/i)) return;
    event.preventDefault();
    actions[action]();
  }

  function prepare() {
    clusters = data.clusters;
    data.order = new Map(clusters.map((cluster, i) => [cluster, i]));
    clusterOf = new Array(data.idx.length);
    data.totals = new Map(data.classes.map((_, label) => [label, { done: 0, total: 0 }]));
    for (const cluster of clusters) for (const row of cluster.rows) clusterOf[row] = cluster;
    for (const label of data.label) {
      if (!data.totals.has(label)) data.totals.set(label, { done: 0, total: 0 });
      data.totals.get(label).total += 1;
    }
    data.hasMap = data.x.some((x) => x !== null);
    data.draftsKey = `hf-score drafts ${data.run} ${data.key}`;
    try { drafts = { ...drafts, ...JSON.parse(localStorage.getItem(data.draftsKey)) }; } catch { /* none */ }
    at.run.textContent = data.run;
    at.terms.replaceChildren(...Object.entries(data.terms).map(([term, [name, text]]) =>
      make("div", { "data-entry": term }, make("dt", {}, name), make("dd", {}, text))));
    at.keys.replaceChildren(...inWords.map(([key, text]) =>
      make("div", {}, make("dt", {}, ...key.split(" ").map((one) => make("kbd", {}, one))), make("dd", {}, text))));
  }

  function listen() {
    for (const button of root.querySelectorAll("[data-do]")) button.addEventListener("click", (event) => {
      if (event.detail) button.blur(); // after a click of the mouse, or a later space bar would press it again
      actions[button.dataset.do]();
    });
    at.note.addEventListener("input", typeNote);
    at.note.addEventListener("change", saveNote);
    at.shortcut.addEventListener("change", nameShortcut);
    at.search.addEventListener("input", () => {
      search = at.search.value;
      narrow();
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
    at.zoom.addEventListener("close", () => {
      if (at.zoomed.src.startsWith("blob:")) URL.revokeObjectURL(at.zoomed.src);
    });
    document.addEventListener("keydown", onKey);
    window.addEventListener("resize", () => requestAnimationFrame(drawMaps));
    window.addEventListener("focus", () => enqueue(async () => { // what another tab has decided meanwhile
      if (take(await backend.refresh())) update();
    }));
    window.addEventListener("beforeunload", (event) => {
      if (waiting) event.preventDefault(); // a verdict is on its way
    });
  }

  async function begin() {
    const [table, opened] = await Promise.all([backend.load(), backend.open()]);
    data = table;
    prepare();
    take(opened);
    if (opened.error) return;
    const start = clusters.map(firstOpen).find((row) => row !== null) ?? clusters[0].rows[0];
    // The pictures first: everything else may come a moment later.
    for (const kind of KINDS) show(at[kind], kind, start);
    listen();
    setTimeout(() => {
      findVisible();
      drawNames();
      go(start);
      root.dataset.ready = "yes";
    });
  }
  begin().catch((error) => say(`The candidates cannot be read (${error}): reload the page.`, true));
}
