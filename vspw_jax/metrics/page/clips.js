// ---- Clips with a scrubber

function chart(parent, videos) {
  const [width, height] = [1000, 90];
  const holder = add(parent, "div");
  const svg = add(holder, "svg", { class: "chart", viewBox: `0 0 ${width} ${height + 6}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const level of [0, 0.5, 1]) {
    const y = 3 + height * (1 - level);
    add(svg, "line", { class: "grid", x1: 0, x2: width, y1: y, y2: y, "vector-effect": "non-scaling-stroke" });
  }
  const frames = videos[0].course.accuracy.length;
  for (const name of ["accuracy", "VC8", "VC16"]) {
    const values = videos[videos.length - 1].course[name];
    if (!values.length) continue;
    const end = (width * (values.length - 1)) / Math.max(frames - 1, 1);
    add(svg, "path", { class: `line ${name}`, d: path(values, end, height), transform: "translate(0 3)" });
  }
  const cursor = add(svg, "line", { class: "cursor", y1: 0, y2: height + 6, "vector-effect": "non-scaling-stroke" });
  const legend = add(holder, "div", { class: "legend muted" });
  for (const [name, text] of [["accuracy", "right pixels"], ["VC8", "VC8 from here on"], ["VC16", "VC16 from here on"]]) {
    const entry = add(legend, "span");
    const key = add(entry, "svg", { width: 26, height: 10, "aria-hidden": "true" });
    add(key, "path", { class: `line ${name}`, d: "M0 5L26 5" });
    entry.append(text);
  }
  add(legend, "span", {}, several ? `0 to 100 %, ${runs[runs.length - 1].name}` : "0 to 100 %");
  return (number) => {
    const x = frames > 1 ? (width * number) / (frames - 1) : 0;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
  };
}

const idsByColour = new Map();
for (const [id, { colour }] of Object.entries(data.classes)) {
  const key = colour.join(",");
  if (Number(id) < 124) idsByColour.set(key, [...(idsByColour.get(key) || []), className(id)]);
}

function classAt(image, x, y) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, Math.floor(x * image.naturalWidth), Math.floor(y * image.naturalHeight), 1, 1, 0, 0, 1, 1);
  const [r, g, b, opacity] = pen.getImageData(0, 0, 1, 1).data;
  if (opacity < 128) return "void";
  return (idsByColour.get(`${r},${g},${b}`) || ["?"]).join(" or ");
}

function clip(parent, shown, index) {
  const videos = runs.map((run) => run.videos.find((video) => video.name === shown.video));
  const article = add(parent, "article", { class: "clip", "aria-labelledby": `clip-${index}` });
  const top = add(article, "header");
  add(top, "h3", { id: `clip-${index}` }, shown.video);
  const scores = runs.map((run, number) => (several ? `${run.name}: ` : "") + `mIoU ${percent(videos[number].mIoU)}, VC8 ${percent(videos[number].VC8)}`);
  add(top, "span", { class: "muted" }, `${shown.why}; ${scores.join("; ")}; ${videos[0].frames} frames`);

  const panels = add(article, "div", { class: several ? "panels several" : "panels" });
  const masks = [];
  const parts = [];
  const panel = (title, kind, mask) => {
    const figure = add(panels, "figure");
    const stack = add(figure, "div", { class: "stack" });
    const photo = add(stack, "img", { class: "photo", alt: "" });
    const over = mask ? add(stack, "img", { class: kind, alt: `${title} in class colours` }) : null;
    add(figure, "figcaption", {}, title);
    parts.push({ stack, photo, over, mask });
    if (kind === "classes" && mask) masks.push({ title, image: over });
    stack.addEventListener("pointermove", (event) => {
      const box = stack.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      readout.textContent = masks.map((entry) => `${entry.title}: ${classAt(entry.image, x, y)}`).join(" · ");
    });
  };
  panel("frame", "photo", null);
  panel("truth", "classes", (frame) => frame.truth);
  runs.forEach((run, number) => {
    const name = several ? run.name : "prediction";
    panel(name, "classes", (frame) => frame.runs[number].prediction);
    panel(several ? `errors of ${name}` : "errors: red is wrong, grey is void", "errors", (frame) => frame.runs[number].error);
  });

  const scrubber = add(article, "div", { class: "scrubber" });
  const play = add(scrubber, "button", { type: "button" }, "Play");
  const slider = add(scrubber, "input", { type: "range", min: 0, max: shown.frames.length - 1, value: 0, step: 1, "aria-label": `Frame of ${shown.video}` });
  const output = add(scrubber, "output");
  const readout = add(article, "p", { class: "readout" }, "Point at a picture to read its classes.");
  const move = chart(article, videos);

  function show() {
    const frame = shown.frames[Number(slider.value)];
    for (const { stack, photo, over, mask } of parts) {
      stack.style.aspectRatio = frame.size.join(" / ");
      photo.src = frame.image;
      if (over) over.src = mask(frame);
    }
    const accuracy = videos.map((video) => percent(video.course.accuracy[frame.number], 1)).join(" / ");
    output.textContent = `${frame.name}: ${accuracy} % right`;
    slider.setAttribute("aria-valuetext", `frame ${frame.name}, ${accuracy} per cent right`);
    move(frame.number);
  }
  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = (Number(slider.value) + 1) % shown.frames.length;
      show();
    }, 200);
  });
  slider.addEventListener("input", () => {
    stop();
    show();
  });
  show();
}

function clips() {
  byId("clips-note").textContent =
    "Drag the slider, or focus it and press the arrow keys. At most " +
    `${data.limits.frames} frames of a clip are shown, scaled to ${data.limits.width} pixels.`;
  const label = add(byId("clip-controls"), "label", {}, "Opacity of the classes");
  const opacity = add(label, "input", { type: "range", min: 0, max: 100, value: 70, id: "opacity" });
  opacity.addEventListener("input", () => byId("clip-list").style.setProperty("--opacity", opacity.value / 100));
  data.clips.forEach((shown, index) => clip(byId("clip-list"), shown, index));
}
