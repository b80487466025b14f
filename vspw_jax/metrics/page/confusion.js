// ---- Confusion matrix

function confusion() {
  const canvas = byId("matrix");
  const readout = byId("confusion-readout");
  let chosen = 0;
  let cell = null;
  let layout = null;
  if (several) {
    const label = add(byId("confusion-controls"), "label", {}, "Run");
    const select = add(label, "select");
    runs.forEach((run, number) => add(select, "option", { value: number }, run.name));
    select.addEventListener("change", () => {
      chosen = Number(select.value);
      cell = null;
      draw();
    });
  }

  function draw() {
    const { classes, pixels } = runs[chosen].confusion;
    const pen = canvas.getContext("2d");
    const font = "11px system-ui, sans-serif";
    pen.font = font;
    const margin = Math.ceil(Math.max(...classes.map((id) => pen.measureText(className(id)).width))) + 10;
    const room = canvas.parentElement.clientWidth - margin - 2;
    const size = Math.max(12, Math.min(30, Math.floor(room / classes.length)));
    const side = margin + size * classes.length + 1;
    const scale = window.devicePixelRatio || 1;
    canvas.style.width = canvas.style.height = `${side}px`;
    canvas.width = canvas.height = Math.round(side * scale);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.font = font;
    layout = { margin, size, classes, pixels };
    pen.fillStyle = css("--ink");
    pen.textBaseline = "middle";
    classes.forEach((id, k) => {
      const middle = margin + size * (k + 0.5);
      pen.textAlign = "right";
      pen.fillText(className(id), margin - 6, middle);
      pen.save();
      pen.translate(middle, margin - 6);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(className(id), 0, 0);
      pen.restore();
    });
    pixels.forEach((row, y) => {
      const total = sum(row);
      row.forEach((value, x) => {
        if (!value) return;
        // A thousandth of the row is still to be seen.
        const strength = Math.log10(1 + (999 * value) / total) / 3;
        pen.fillStyle = `rgba(${css(x === y ? "--good" : "--bad")}, ${Math.max(strength, 0.06)})`;
        pen.fillRect(margin + x * size, margin + y * size, size, size);
      });
    });
    pen.strokeStyle = css("--line");
    pen.lineWidth = 0.5;
    for (let k = 0; k <= classes.length; k++) {
      const at = margin + k * size;
      pen.beginPath();
      pen.moveTo(at, margin);
      pen.lineTo(at, side - 1);
      pen.moveTo(margin, at);
      pen.lineTo(side - 1, at);
      pen.stroke();
    }
    if (cell) {
      pen.strokeStyle = css("--accent");
      pen.lineWidth = 2.5;
      pen.strokeRect(margin + cell.x * size, margin + cell.y * size, size, size);
    }
    say();
  }

  function say() {
    if (!cell) {
      readout.textContent = "";
      return;
    }
    const { classes, pixels } = layout;
    const value = pixels[cell.y][cell.x];
    const total = sum(pixels[cell.y]);
    const share = total ? `, ${percent(value / total)} % of it` : "";
    readout.textContent = `${className(classes[cell.y])} predicted as ${className(classes[cell.x])}: ${count(value)} pixels${share}`;
  }

  function choose(x, y) {
    const most = layout.classes.length - 1;
    cell = { x: Math.min(Math.max(x, 0), most), y: Math.min(Math.max(y, 0), most) };
    draw();
  }

  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left - layout.margin) / layout.size);
    const y = Math.floor((event.clientY - box.top - layout.margin) / layout.size);
    const inside = x >= 0 && y >= 0 && x < layout.classes.length && y < layout.classes.length;
    if (inside && !(cell && cell.x === x && cell.y === y)) choose(x, y);
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const [dx, dy] = steps[event.key];
    if (cell) choose(cell.x + dx, cell.y + dy);
    else choose(0, 0);
  });
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

// ---- Notes

function notes() {
  const facts = data.data;
  const list = byId("facts");
  const fact = (name, value, tag = null) => {
    add(list, "dt", {}, name);
    const place = add(list, "dd");
    if (tag) add(place, tag, {}, value);
    else place.textContent = value;
  };
  if (data.command) fact("made by", data.command, "code");
  fact("data", `${facts.path}, split ${facts.split}, of ${facts.date}`);
  if (facts.fingerprint) fact("its fingerprint", facts.fingerprint, "code");
  fact("void", `${count(facts.void_pixels)} pixels without a class, which count in VC8 and VC16 alone`);
  fact("windows", `${count(facts.VC8_windows)} of 8 frames, ${count(facts.VC16_windows)} of 16`);
  fact(
    "intervals",
    `${100 * data.resampling.level} % of ${count(data.resampling.replicates)} draws of as many videos with replacement, ` +
      `seed ${data.resampling.seed}; runs are compared on the same draws`,
  );
  fact(
    "scores",
    "as VSPW's devkit computes them: classes without labelled pixels do not count in mIoU; in VC8 and VC16 a constantly " +
      "wrong prediction is consistent, void is a label, and the last window of a video is not used",
  );
}

head();
if (!several) cards();
scoreTable();
clips();
classTable();
confusion();
videoTable();
notes();
