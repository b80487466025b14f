"use strict";
// Builds the page from the JSON in #data. Text becomes text nodes, never HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const several = runs.length > 1;
const SVG = "http://www.w3.org/2000/svg";

function add(parent, tag, attributes = {}, text = null) {
  const svg = tag === "svg" || parent.namespaceURI === SVG;
  const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return parent.appendChild(made);
}
const byId = (id) => document.getElementById(id);
const percent = (value, digits = 2) => (value === null || value === undefined ? "–" : (100 * value).toFixed(digits));
const points = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + (100 * Math.abs(value)).toFixed(2);
const count = (value) => value.toLocaleString("en-US");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const className = (id) => data.classes[id].name;
const rgb = (colour) => `rgb(${colour.join(",")})`;
const sum = (values) => values.reduce((total, value) => total + value, 0);

// ---- Head, warnings, scores

function head() {
  const names = runs.map((run) => run.name).join(" and ");
  byId("title").textContent = (several ? "Comparison of " : "Evaluation of ") + names;
  document.title = byId("title").textContent;
  const facts = data.data;
  byId("subtitle").textContent =
    `Split ${facts.split}: ${count(facts.videos)} videos, ${count(facts.frames)} frames, ` +
    `${count(facts.labelled_pixels)} labelled pixels`;
  const list = byId("warnings").querySelector("ul");
  for (const run of runs) {
    for (const warning of run.warnings) add(list, "li", {}, (several ? run.name + ": " : "") + warning);
  }
  byId("warnings").hidden = !list.children.length;
}

function rangeGraphic(parent, value, interval) {
  const range = add(parent, "div", { class: "range", "aria-hidden": "true" });
  if (interval) {
    const [low, high] = interval;
    add(range, "div", { class: "span", style: `left:${100 * low}%;width:${100 * (high - low)}%` });
  }
  if (value !== null) add(range, "div", { class: "point", style: `left:${100 * value}%` });
}

function cards() {
  const run = runs[0];
  for (const name of data.headline) {
    if (run.scores[name] === null) continue;
    const [title, meaning] = data.labels[name];
    const card = add(byId("cards"), "div", { class: "card", title: meaning });
    add(card, "div", { class: "name" }, title);
    add(card, "div", { class: "value" }, percent(run.scores[name]));
    rangeGraphic(card, run.scores[name], run.intervals[name]);
    const between = run.intervals[name];
    add(card, "div", { class: "small" }, between ? `${percent(between[0])} to ${percent(between[1])}` : "no interval");
    if (name in run.constant) {
      add(card, "div", { class: "small" }, `always ${run.constant.class}: ${percent(run.constant[name])}`);
    }
  }
}

function scoreTable() {
  const names = [...(several ? data.headline : []), ...data.others];
  const scroll = add(byId("all-scores"), "div", { class: "scroll" });
  const table = add(scroll, "table");
  const draws = `95 % of ${count(data.resampling.replicates)} draws of as many videos lie between the figures in brackets.`;
  add(table, "caption", {}, several ? `In per cent; ${draws} Differences are to ${runs[0].name}.` : `In per cent; ${draws}`);
  const top = add(add(table, "thead"), "tr");
  add(top, "th", { scope: "col" }, "score");
  runs.forEach((run, number) => {
    add(top, "th", { scope: "col" }, several ? run.name : "value");
    if (number) add(top, "th", { scope: "col" }, "difference");
  });
  const body = add(table, "tbody");
  for (const name of names) {
    if (runs.every((run) => run.scores[name] === null)) continue;
    const row = add(body, "tr");
    const head = add(row, "th", { scope: "row", class: "wrap" }, data.labels[name][0]);
    add(head, "div", { class: "meaning" }, data.labels[name][1]);
    runs.forEach((run, number) => {
      const between = run.intervals[name];
      const brackets = between ? ` [${percent(between[0])}, ${percent(between[1])}]` : "";
      add(row, "td", {}, percent(run.scores[name]) + brackets);
      if (number) difference(row, data.differences[number - 1][name]);
    });
  }
}

function difference(row, found) {
  if (!found) return add(row, "td", {}, "–");
  const [value, low, high] = found;
  const known = low !== null && (low > 0 || high < 0);
  const cell = add(row, "td", { class: known ? (value > 0 ? "up" : "down") : "" }, points(value));
  if (low !== null) cell.textContent += ` [${points(low)}, ${points(high)}]`;
  return cell;
}

// ---- Tables whose columns sort

function sortable(parent, columns, rows, first) {
  // columns: {title, value(row), text?(row), draw?(cell, row), kind?}; kind "text" aligns left and sorts upwards first.
  const table = add(parent, "table");
  const top = add(add(table, "thead"), "tr");
  const body = add(table, "tbody");
  const heads = columns.map((column) => {
    const cell = add(top, "th", { scope: "col", class: column.kind === "text" ? "text" : "" });
    if (!column.value) {
      cell.textContent = column.title;
      return cell;
    }
    add(cell, "button", { type: "button" }, column.title).addEventListener("click", () => sort(column));
    return cell;
  });
  const lines = rows.map((row) => {
    const line = add(body, "tr");
    columns.forEach((column, number) => {
      const cell = number ? add(line, "td", { class: column.kind === "text" ? "text" : "" }) : add(line, "th", { scope: "row" });
      if (column.draw) column.draw(cell, row);
      else cell.textContent = column.text ? column.text(row) : column.value(row);
    });
    return { row, line };
  });
  function sort(column) {
    const cell = heads[columns.indexOf(column)];
    const now = cell.getAttribute("aria-sort");
    const upwards = now ? now === "descending" : column.kind === "text";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", upwards ? "ascending" : "descending");
    const sign = upwards ? 1 : -1;
    lines.sort((a, b) => {
      const [x, y] = [column.value(a.row), column.value(b.row)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x < y ? -1 : x > y ? 1 : 0);
    });
    body.append(...lines.map((entry) => entry.line));
  }
  sort(columns[first]);
}

function classRows() {
  const rows = new Map();
  runs.forEach((run, number) => {
    const { classes, pixels } = run.confusion;
    const columns = classes.map((_, k) => sum(pixels.map((row) => row[k])));
    classes.forEach((id, k) => {
      const labelled = sum(pixels[k]);
      const hit = pixels[k][k];
      const wrong = pixels[k].map((value, other) => (other === k ? 0 : value));
      const most = Math.max(...wrong);
      if (!rows.has(id)) rows.set(id, { id, runs: runs.map(() => null) });
      rows.get(id).runs[number] = {
        labelled,
        predicted: columns[k],
        iou: labelled ? hit / (labelled + columns[k] - hit) : null,
        recall: labelled ? hit / labelled : null,
        precision: columns[k] ? hit / columns[k] : null,
        taken: most > 0 ? { id: classes[wrong.indexOf(most)], share: most / labelled } : null,
      };
    });
  });
  return [...rows.values()];
}

function swatched(cell, id) {
  add(cell, "span", { class: "swatch", style: `background:${rgb(data.classes[id].colour)}`, "aria-hidden": "true" });
  cell.append(className(id));
}

function barred(cell, value) {
  cell.append(percent(value));
  const bar = add(cell, "span", { class: "bar", "aria-hidden": "true" });
  add(bar, "span", { style: `width:${100 * (value || 0)}%` });
}

function classTable() {
  const rows = classRows();
  const total = sum(rows.map((row) => (row.runs[0] ? row.runs[0].labelled : 0)));
  const of = (number, name) => (row) => (row.runs[number] ? row.runs[number][name] : null);
  const columns = [{ title: "class", kind: "text", value: (row) => className(row.id), draw: (cell, row) => swatched(cell, row.id) }];
  runs.forEach((run, number) => {
    const iou = of(number, "iou");
    columns.push({ title: several ? `IoU % of ${run.name}` : "IoU %", value: iou, draw: (cell, row) => barred(cell, iou(row)) });
    if (number) {
      const change = (row) => (iou(row) === null || of(0, "iou")(row) === null ? null : iou(row) - of(0, "iou")(row));
      columns.push({ title: "difference", value: change, draw: (cell, row) => colouredChange(cell, change(row)) });
    }
  });
  const last = runs.length - 1;
  columns.push(
    { title: "recall %", value: of(last, "recall"), text: (row) => percent(of(last, "recall")(row)) },
    { title: "precision %", value: of(last, "precision"), text: (row) => percent(of(last, "precision")(row)) },
    { title: "pixels", value: of(last, "labelled"), text: (row) => count(of(last, "labelled")(row) || 0) },
    { title: "of all %", value: of(last, "labelled"), text: (row) => percent((of(last, "labelled")(row) || 0) / total) },
    { title: "predicted", value: of(last, "predicted"), text: (row) => count(of(last, "predicted")(row) || 0) },
    { title: "mostly taken for", kind: "text", text: (row) => takenFor(of(last, "taken")(row)) },
  );
  sortable(byId("class-table"), columns, rows, several ? 3 : columns.length - 4);
}

const takenFor = (taken) => (taken ? `${className(taken.id)} (${percent(taken.share, 1)} %)` : "");

function colouredChange(cell, value) {
  cell.textContent = value === null ? "–" : points(value);
  if (value) cell.classList.add(value > 0 ? "up" : "down");
}

// ---- Videos, lines over time

function path(values, width, height) {
  const step = values.length > 1 ? width / (values.length - 1) : 0;
  let pen = "M";
  return values
    .map((value, x) => {
      if (value === null) {
        pen = "M";
        return "";
      }
      const part = `${pen}${(x * step).toFixed(1)} ${(height * (1 - value)).toFixed(1)}`;
      pen = "L";
      return part;
    })
    .join("");
}

function sparkline(cell, course) {
  const svg = add(cell, "svg", { width: 150, height: 26, viewBox: "0 -1 150 28", "aria-hidden": "true" });
  const frames = course.accuracy.length;
  add(svg, "path", { class: "line accuracy", d: path(course.accuracy, 150, 26) });
  if (course.VC8.length) {
    add(svg, "path", { class: "line VC8", d: path(course.VC8, (150 * (course.VC8.length - 1)) / Math.max(frames - 1, 1), 26) });
  }
}

function videoTable() {
  const rows = runs[0].videos.map((video) => ({
    name: video.name,
    runs: runs.map((run) => run.videos.find((other) => other.name === video.name)),
  }));
  const columns = [{ title: "video", kind: "text", value: (row) => row.name }];
  columns.push({ title: "frames", value: (row) => row.runs[0].frames });
  runs.forEach((run, number) => {
    for (const name of several ? ["mIoU", "VC8"] : ["mIoU", "pixel_accuracy", "VC8", "VC16"]) {
      const value = (row) => row.runs[number][name];
      const title = data.labels[name][0] + (several ? ` of ${run.name}` : "");
      columns.push({ title, value, text: (row) => percent(value(row)) });
    }
    columns.push({ title: several ? `over time, ${run.name}` : "over time", draw: (cell, row) => sparkline(cell, row.runs[number].course) });
  });
  sortable(byId("video-table"), columns, rows, 2);
}
